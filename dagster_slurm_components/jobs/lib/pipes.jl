# Reports to Dagster from a Julia payload, and helps it to stop in time. Base and Serialization only, Julia 1.6 or newer.
# It lies in every job:
#
#   include(joinpath(ENV["DAGSTER_SLURM_LIB"], "pipes.jl"))
#   using .DagsterSlurmPipes
#
# `metadata` is a dictionary. A value's type is Julia's own; another one of Dagster's is named by
# pipes_metadata(value, type). `nothing` and `missing` are null; NaN and infinite numbers are text.
# A message is one line of JSON, appended by one write, so that lines of several processes don't mix. Outside of a job
# messages go to stdout. `pipes.sh` beside this file lists the same verbs.
module DagsterSlurmPipes

using Serialization: deserialize, serialize

export pipes_metadata, pipes_log, pipes_materialize, pipes_check, pipes_progress, pipes_extra
export pipes_partition_key, pipes_partition_range, pipes_partition_window, pipes_partition_keys
export pipes_listen, pipes_asked, pipes_leave, pipes_restart_count, pipes_folder, pipes_save, pipes_load

const TYPES = ("__infer__", "text", "url", "path", "notebook", "json", "md", "float", "int", "bool", "dagster_run",
               "asset", "null", "table", "table_schema", "table_column_lineage", "timestamp")
const PERCENT = Ref(-1)

struct Metadata
    value::Any
    type::String
end

in_job() = !isempty(get(ENV, "DAGSTER_SLURM_MESSAGES", ""))

function json(text::AbstractString)
    io = IOBuffer()
    print(io, '"')
    for character in text
        if character == '"' || character == '\\'
            print(io, '\\', character)
        elseif !isvalid(character)
            print(io, '\ufffd')
        elseif character < ' '
            print(io, "\\u", string(UInt32(character), base=16, pad=4))
        else
            print(io, character)
        end
    end
    print(io, '"')
    return String(take!(io))
end
json(::Union{Nothing,Missing}) = "null"
json(value::Union{Bool,Integer}) = string(value)
function json(value::Real)
    number = Float64(value)
    isnan(number) && return "\"nan\""
    isinf(number) && return number > 0 ? "\"inf\"" : "\"-inf\""
    return string(number)
end
json(values::Union{AbstractVector,Tuple,AbstractSet}) = "[" * join((json(value) for value in values), ", ") * "]"
json(values::Union{AbstractDict,NamedTuple}) =
    "{" * join((json(string(name)) * ": " * json(value) for (name, value) in pairs(values)), ", ") * "}"
json(value) = json(string(value))

typed(value) = typed(Metadata(value, "__infer__"))
function typed(metadata::Metadata)
    value, type = metadata.value, metadata.type
    if value === nothing || value === missing
        type = "null"
    elseif value isa Real && !(value isa Integer)
        type = isfinite(value) ? (type == "__infer__" ? "float" : type) : "text"
    end
    return "{\"raw_value\": " * json(value) * ", \"type\": \"" * type * "\"}"
end
metadata_json(values) =
    "{" * join((json(string(name)) * ": " * typed(value) for (name, value) in pairs(values)), ", ") * "}"

function send(method, params)
    if !in_job()
        println(method, " ", params)
        return nothing
    end
    line = "{\"__dagster_pipes_version\": \"0.1\", \"method\": \"" * method * "\", \"params\": " * params * "}\n"
    flags = Base.Filesystem.JL_O_WRONLY | Base.Filesystem.JL_O_APPEND | Base.Filesystem.JL_O_CREAT
    file = Base.Filesystem.open(ENV["DAGSTER_SLURM_MESSAGES"], flags, 0o600)
    try
        write(file, Vector{UInt8}(line)) # without a buffer: one write
    finally
        close(file)
    end
    return nothing
end

function pipes_metadata(value, type="__infer__")
    type in TYPES || throw(ArgumentError("no type of Dagster's metadata: $type"))
    return Metadata(value, type)
end

function pipes_log(message, level="INFO")
    level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") || throw(ArgumentError("no level: $level"))
    return send("log", "{\"message\": " * json(string(message)) * ", \"level\": \"" * level * "\"}")
end

function pipes_materialize(asset; metadata=Dict(), data_version=nothing)
    version = data_version === nothing ? "null" : json(string(data_version))
    return send("report_asset_materialization",
                "{\"asset_key\": " * json(asset) * ", \"data_version\": " * version * ", \"metadata\": " * metadata_json(metadata) * "}")
end

function pipes_check(asset, name, passed::Bool; severity="ERROR", metadata=Dict())
    severity in ("ERROR", "WARN") || throw(ArgumentError("a severity is WARN or ERROR, not: $severity"))
    return send("report_asset_check",
                "{\"asset_key\": " * json(asset) * ", \"check_name\": " * json(name) * ", \"passed\": " * json(passed) *
                ", \"severity\": \"" * severity * "\", \"metadata\": " * metadata_json(metadata) * "}")
end

function pipes_progress(done, total, text="")
    percent = floor(Int, 100 * done / total)
    percent == PERCENT[] && return nothing
    PERCENT[] = percent
    return pipes_log("$percent % ($done of $total)" * (isempty(text) ? "" : ": $text"))
end

# Text as it is, all else as JSON.
function pipes_extra(name, default...)
    file = joinpath(get(ENV, "DAGSTER_SLURM_RUN_DIR", ""), "extras.tsv")
    for line in (isfile(file) ? readlines(file) : String[])
        own, value = split(line, '\t')
        unescape_string(own) == name && return unescape_string(value)
    end
    isempty(default) && throw(KeyError(name))
    return first(default)
end

function variable(name)
    haskey(ENV, name) || error("$name is not set: the run has no such partition")
    return ENV[name]
end
pipes_partition_key() = variable("DAGSTER_SLURM_PARTITION_KEY")
pipes_partition_range() = variable.(("DAGSTER_SLURM_PARTITION_RANGE_START", "DAGSTER_SLURM_PARTITION_RANGE_END"))
pipes_partition_window() = variable.(("DAGSTER_SLURM_PARTITION_START", "DAGSTER_SLURM_PARTITION_END"))
function pipes_partition_keys()
    file = get(ENV, "DAGSTER_SLURM_PARTITION_KEYS_FILE", "")
    return isempty(file) ? [pipes_partition_key()] : readlines(file)
end

# Julia takes USR1 for its profiler: the job writes down which signals reached it since its last start, and passes none
# of those that ask for a checkpoint on to a payload that reads there.
function pipes_listen()
    in_job() && touch(joinpath(ENV["DAGSTER_SLURM_RUN_DIR"], ".reads_status"))
    return nothing
end
function pipes_asked()
    file = joinpath(get(ENV, "DAGSTER_SLURM_RUN_DIR", ""), "status")
    in_job() && isfile(file) || return false
    lines = readlines(file)
    start = something(findlast(startswith("restart="), lines), 0)
    return any(in(("signal=USR1", "signal=USR2")), lines[start+1:end])
end

pipes_leave() = exit(75)
pipes_restart_count() = parse(Int, get(ENV, "DAGSTER_SLURM_RESTART_COUNT", "0"))
pipes_folder() = mkpath(get(ENV, "DAGSTER_SLURM_CHECKPOINT", "checkpoint"))
function pipes_save(name, value) # any value, whole or not at all
    written, io = mktemp(pipes_folder())
    serialize(io, value)
    close(io)
    Base.Filesystem.rename(written, joinpath(pipes_folder(), name)) # mv would remove the old one first
    return nothing
end
function pipes_load(name) # nothing when nothing was saved
    file = joinpath(pipes_folder(), name)
    return isfile(file) ? deserialize(file) : nothing
end

function __init__()
    in_job() || return
    send("opened", "{\"extras\": {}}")
    atexit(() -> send("closed", "{}"))
    return
end

end
