# The curve of a day at each station: its mean, its swing, and the hour of its peak.
source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))
day <- paste0(commandArgs(trailingOnly = TRUE)[1], ".csv")
values <- read.csv(file.path(Sys.getenv("DATA_DIR"), "clean", day))
curve <- function(rows) {
  angle <- rows$hour / 12 * pi
  found <- coef(lm(rows$celsius ~ cos(angle) + sin(angle)))
  data.frame(
    station = rows$station[1],
    mean = round(found[[1]], 2),
    swing = round(sqrt(found[[2]]^2 + found[[3]]^2), 2),
    peak = round((atan2(found[[3]], found[[2]]) / pi * 12) %% 24, 1)
  )
}
curves <- do.call(rbind, lapply(split(values, values$station), curve))
folder <- file.path(Sys.getenv("DATA_DIR"), "fit")
dir.create(folder, showWarnings = FALSE)
write.csv(curves, file.path(folder, day), row.names = FALSE)
pipes_check("stations/fit", "warmest_after_noon", all(curves$peak > 12 & curves$peak < 18))
pipes_materialize("stations/fit", metadata = list(mean = mean(curves$mean), curves = curves))
