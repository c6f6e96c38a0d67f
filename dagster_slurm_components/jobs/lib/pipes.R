# Reports to Dagster from an R payload, and helps it to stop in time. Base R only, 3.5 or newer. It lies in every job:
#
#   source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))
#
# `metadata` is a named list. A value's type is R's own (a double is a float, a data frame a table); another one of
# Dagster's is named by pipes_metadata(value, type). NA and NULL are null; NaN and infinite numbers are text.
# A message is one line of JSON, appended by one write, so that lines of several processes don't mix. Outside of a job
# messages go to stdout. `pipes.sh` beside this file lists the same verbs.

.pipes_types <- c("__infer__", "text", "url", "path", "notebook", "json", "md", "float", "int", "bool", "dagster_run",
                  "asset", "null", "table", "table_schema", "table_column_lineage", "timestamp")
.pipes_state <- new.env()

.pipes_in_job <- function() nzchar(Sys.getenv("DAGSTER_SLURM_MESSAGES"))

.pipes_string <- function(text) {
  text <- as.character(text)
  # Whatever the locale: a job's is often C. Bytes that are no UTF-8 are shown as such.
  if (!(Encoding(text) == "unknown" && validUTF8(text))) text <- enc2utf8(text)
  if (!validUTF8(text)) text <- iconv(text, "UTF-8", "UTF-8", sub = "byte")
  Encoding(text) <- "bytes"
  swap <- function(from, to) text <<- gsub(from, to, text, fixed = TRUE, useBytes = TRUE)
  swap("\\", "\\\\")
  swap("\"", "\\\"")
  for (code in 1:31) {
    if (grepl(character <- rawToChar(as.raw(code)), text, fixed = TRUE, useBytes = TRUE)) {
      swap(character, sprintf("\\u%04x", code))
    }
  }
  Encoding(text) <- "unknown"
  paste0("\"", text, "\"")
}

.pipes_number <- function(x) {
  if (is.nan(x)) return("\"nan\"")
  if (is.infinite(x)) return(if (x > 0) "\"inf\"" else "\"-inf\"")
  short <- sprintf("%.15g", x)
  if (as.numeric(short) == x) short else sprintf("%.17g", x)
}

.pipes_json <- function(x, array = inherits(x, "AsIs")) { # I(x): an array also of one
  if (is.null(x)) return("null")
  if (inherits(x, "Date") || inherits(x, "POSIXt")) x <- format(x, if (inherits(x, "Date")) "%Y-%m-%d" else "%Y-%m-%dT%H:%M:%S%z")
  if (is.factor(x)) x <- as.character(x)
  if (!is.list(x) && length(x) == 1 && is.null(names(x)) && !array) {
    if (is.na(x) && !is.nan(x)) return("null")
    if (is.logical(x)) return(if (x) "true" else "false")
    if (is.integer(x)) return(sprintf("%d", x))
    return(if (is.numeric(x)) .pipes_number(as.numeric(x)) else .pipes_string(x))
  }
  items <- vapply(seq_along(x), function(at) .pipes_json(x[[at]]), "")
  if (is.null(names(x))) return(paste0("[", paste(items, collapse = ", "), "]"))
  named <- vapply(names(x), .pipes_string, "", USE.NAMES = FALSE)
  paste0("{", paste(named, items, sep = ": ", collapse = ", "), "}")
}

.pipes_table <- function(frame) {
  kind <- function(column) if (is.logical(column)) "bool" else if (is.integer(column)) "int" else if (is.numeric(column)) "float" else "string"
  columns <- lapply(frame, function(column) if (is.factor(column)) as.character(column) else column)
  list(
    records = lapply(seq_len(nrow(frame)), function(row) lapply(columns, function(column) column[[row]])),
    schema = unname(lapply(names(columns), function(name) list(name = name, type = kind(columns[[name]]))))
  )
}

.pipes_value <- function(x) {
  type <- "__infer__"
  if (inherits(x, "pipes_metadata")) {
    type <- x$type
    x <- x$value
  }
  if (is.data.frame(x)) {
    x <- .pipes_table(x)
    type <- "table"
  } else if (is.null(x) || (is.atomic(x) && length(x) == 1 && is.na(x) && !is.nan(x))) {
    type <- "null"
  } else if (is.numeric(x) && length(x) == 1 && !is.finite(x)) {
    type <- "text"
  } else if (is.double(x) && length(x) == 1 && !is.object(x) && type == "__infer__") {
    type <- "float"
  }
  sprintf("{\"raw_value\": %s, \"type\": \"%s\"}", if (type == "json") .pipes_json(x, array = TRUE) else .pipes_json(x), type)
}

.pipes_all <- function(metadata) {
  if (length(metadata) == 0) return("{}")
  if (is.null(names(metadata)) || any(!nzchar(names(metadata)))) stop("metadata is a list with names")
  named <- vapply(names(metadata), .pipes_string, "", USE.NAMES = FALSE)
  values <- vapply(seq_along(metadata), function(at) .pipes_value(metadata[[at]]), "")
  paste0("{", paste(named, values, sep = ": ", collapse = ", "), "}")
}

.pipes_send <- function(method, params) {
  if (!.pipes_in_job()) return(invisible(cat(method, " ", params, "\n", sep = "")))
  line <- sprintf("{\"__dagster_pipes_version\": \"0.1\", \"method\": \"%s\", \"params\": ", method)
  bytes <- charToRaw(paste0(line, params, "}\n"))
  # A connection writes what is longer than its buffer in pieces; dd gathers them.
  out <- if (length(bytes) < 4000) file(Sys.getenv("DAGSTER_SLURM_MESSAGES"), "ab") else
    pipe("dd obs=1048576 2>/dev/null >>\"$DAGSTER_SLURM_MESSAGES\"", "wb")
  on.exit(close(out))
  writeBin(bytes, out)
  invisible()
}

pipes_metadata <- function(value, type = "__infer__") {
  structure(list(value = value, type = match.arg(type, .pipes_types)), class = "pipes_metadata")
}

pipes_log <- function(message, level = "INFO") {
  level <- match.arg(level, c("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
  .pipes_send("log", sprintf("{\"message\": %s, \"level\": \"%s\"}", .pipes_string(paste(message, collapse = "\n")), level))
}

pipes_materialize <- function(asset, metadata = list(), data_version = NULL) {
  version <- if (is.null(data_version)) "null" else .pipes_string(data_version)
  .pipes_send("report_asset_materialization", paste0(
    "{\"asset_key\": ", .pipes_string(asset), ", \"data_version\": ", version, ", \"metadata\": ", .pipes_all(metadata), "}"))
}

pipes_check <- function(asset, name, passed, severity = "ERROR", metadata = list()) {
  if (!(isTRUE(passed) || isFALSE(passed))) stop("whether the check ", name, " passed is TRUE or FALSE")
  severity <- match.arg(severity, c("ERROR", "WARN"))
  .pipes_send("report_asset_check", paste0(
    "{\"asset_key\": ", .pipes_string(asset), ", \"check_name\": ", .pipes_string(name), ", \"passed\": ", .pipes_json(passed),
    ", \"severity\": \"", severity, "\", \"metadata\": ", .pipes_all(metadata), "}"))
}

pipes_progress <- function(done, total, text = NULL) {
  percent <- floor(100 * done / total)
  if (identical(percent, .pipes_state$percent)) return(invisible())
  .pipes_state$percent <- percent
  pipes_log(paste0(percent, " % (", done, " of ", total, ")", if (!is.null(text)) paste0(": ", text)))
}

pipes_extra <- function(name, default) {
  file <- .pipes_file("extras.tsv")
  lines <- if (file.exists(file)) readLines(file, encoding = "UTF-8") else character()
  for (line in lines) {
    pair <- vapply(strsplit(paste0(line, "\t"), "\t", fixed = TRUE)[[1]], .pipes_unescape, "", USE.NAMES = FALSE)
    if (identical(enc2utf8(pair[1]), enc2utf8(name))) return(if (length(pair) > 1) pair[2] else "")
  }
  if (missing(default)) stop("there is no extra ", name)
  default
}

.pipes_unescape <- function(text) {
  found <- gregexpr("\\\\.", text)
  regmatches(text, found) <- lapply(regmatches(text, found), function(each) {
    c("\\n" = "\n", "\\t" = "\t", "\\r" = "\r", "\\\\" = "\\")[each]
  })
  text
}

.pipes_variables <- function(...) {
  for (name in c(...)) if (is.na(Sys.getenv(name, NA))) stop(name, " is not set: the run has no such partition")
  Sys.getenv(c(...), names = FALSE)
}
pipes_partition_key <- function() .pipes_variables("DAGSTER_SLURM_PARTITION_KEY")
pipes_partition_range <- function() .pipes_variables("DAGSTER_SLURM_PARTITION_RANGE_START", "DAGSTER_SLURM_PARTITION_RANGE_END")
pipes_partition_window <- function() .pipes_variables("DAGSTER_SLURM_PARTITION_START", "DAGSTER_SLURM_PARTITION_END")
pipes_partition_keys <- function() {
  file <- Sys.getenv("DAGSTER_SLURM_PARTITION_KEYS_FILE")
  if (nzchar(file)) readLines(file, encoding = "UTF-8") else pipes_partition_key()
}

# R ends itself on USR1 and can't be taught otherwise: the job writes down which signals reached it since its last start,
# and passes none of those that ask for a checkpoint on to a payload that reads there.
.pipes_file <- function(name) file.path(Sys.getenv("DAGSTER_SLURM_RUN_DIR"), name)
pipes_listen <- function() if (.pipes_in_job()) invisible(file.create(.pipes_file(".reads_status")))
pipes_asked <- function() {
  file <- .pipes_file("status")
  lines <- if (.pipes_in_job() && file.exists(file)) readLines(file, warn = FALSE) else character()
  any(utils::tail(lines, length(lines) - max(0, grep("^restart=", lines))) %in% c("signal=USR1", "signal=USR2"))
}

pipes_leave <- function() quit(save = "no", status = 75)
pipes_restart_count <- function() as.integer(Sys.getenv("DAGSTER_SLURM_RESTART_COUNT", "0"))
pipes_folder <- function() {
  folder <- Sys.getenv("DAGSTER_SLURM_CHECKPOINT", "checkpoint")
  dir.create(folder, showWarnings = FALSE, recursive = TRUE)
  folder
}
pipes_save <- function(name, value) { # any R object, whole or not at all
  written <- tempfile(".", pipes_folder())
  saveRDS(value, written)
  if (!file.rename(written, file.path(pipes_folder(), name))) stop("the checkpoint ", name, " can't be written")
  invisible()
}
pipes_load <- function(name) { # NULL when nothing was saved
  file <- file.path(pipes_folder(), name)
  if (file.exists(file)) readRDS(file)
}

if (.pipes_in_job()) {
  .pipes_send("opened", "{\"extras\": {}}")
  reg.finalizer(.pipes_state, function(state) .pipes_send("closed", "{}"), onexit = TRUE)
}
