#!/usr/bin/env bash
#
# Uploads files to Azure Blob Storage with Microsoft's own tools: no more than what is listed at the end of this
# script, and each to the name that stands there.
#
#     bash upload.sh              upload what has not arrived yet
#     bash upload.sh --help       the options
#
# It needs bash (3.2 or newer), find, ln, mkdir, mv, rm, sleep and the programs that it names when they are missing.
# The token comes from the environment (AZURE_STORAGE_SAS_TOKEN) or is asked for; it is in no file. azcopy has no other
# way to take a token than its command line, where others on this machine can see it while it runs; az has.
#
# Stop it with Ctrl-C or kill, at any time, and run it again: it goes on with what is missing. Beside the script it
# keeps what arrived (.results), what did not and why (.failed), and what the tools said (.log).
#
# Exit codes: 0 everything is there; 2 a program, an option or the token is missing; 3 some files are not there or did
# not prove right; 10 somebody else has the journal; 130, 143 or 129 it was stopped; 1 anything else.

# The settings are written into this text, and a name may look as if it wanted to be expanded:
# shellcheck disable=SC2154,SC2016

if [ -z "${BASH_VERSION-}" ]; then
    echo "error: this is a script for bash: bash $0" >&2
    exit 2
fi

# @settings@

set -u -o pipefail
umask 077
# What is written here is meant, and not what the environment says; and certificates are always checked.
unset AZURE_CLI_DISABLE_CONNECTION_VERIFICATION ADAL_PYTHON_SSL_NO_VERIFY AZURE_STORAGE_CONNECTION_STRING \
    AZURE_STORAGE_KEY AZURE_STORAGE_ACCOUNT AZURE_STORAGE_AUTH_MODE
export AZURE_CORE_COLLECT_TELEMETRY=0

readonly attempts=3
readonly hopeless=5

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $2"
    exit "$1"
}

usage() {
    cat <<END
Upload $files_total files ($bytes_total bytes) to $destination_url with $tool.

  --workers N         how many of them run at once (default: $workers)
  --root NAME=DIR     where the files of NAME lie on this machine; may be repeated:
END
    local number
    for number in "${!root_names[@]}"; do
        printf '                        %s=%s\n' "${root_names[number]}" "${roots[number]}"
    done
    cat <<END
  --retry-wait N      seconds before a failed run of $tool is repeated, later three times that (default: 10)
  --option WORD       hand this on to every run of $tool, such as --option=--cap-mbps=100; may be repeated
  --check             look whether all that is needed is there, upload nothing
  --help              show this
END
}

# --- What to do -------------------------------------------------------------------------------------------------------

begin() {
    local name
    check_only=no retry_wait=10 options=()
    while [ $# -gt 0 ]; do
        case $1 in
        --workers | --retry-wait)
            case ${2-} in '' | *[!0-9]*) fail 2 "$1 needs a number" ;; esac
            if [ "$1" = --workers ]; then workers=$2; else retry_wait=$2; fi
            [ "$workers" -gt 0 ] || fail 2 "--workers needs a number above 0"
            shift 2
            ;;
        --root)
            name=${2-}
            set_root "${name%%=*}" "${name#*=}"
            shift 2
            ;;
        --option=*)
            options+=("${1#*=}")
            shift
            ;;
        --option)
            options+=("${2-}")
            shift 2
            ;;
        --check)
            check_only=yes
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail 2 "there is no option $1; --help shows those that there are" ;;
        esac
    done
    main=$$
    script=$0
    readonly results=$script.results failed=$script.failed log=$script.log lock_note=$script.lock
    work=$(mktemp -d "${TMPDIR:-/tmp}/chorus-upload.XXXXXX") || fail 1 "no temporary directory can be made"
    readonly main script work
    mkdir "$work/queue" "$work/taken" "$work/sent" "$work/failed"
    is_ours=no
    trap leave EXIT
    trap 'stopped 130' INT
    trap 'stopped 143' TERM
    trap 'stopped 129' HUP
    : >>"$log" || fail 1 "$log cannot be written"
    check_tools
    check_token
    read_results
    seen=0 there=0 batch=0 batch_count=0 batch_size=0
}

set_root() {
    local number
    for number in "${!root_names[@]}"; do
        if [ "${root_names[number]}" = "$1" ]; then
            ! is_remote "$number" || fail 2 "--root $1: these files are copied from ${roots[number]}"
            [ -d "$2" ] || fail 2 "--root $1: there is no directory $2"
            roots[number]=$2
            return
        fi
    done
    fail 2 "--root NAME=DIR: there are no files of '$1' in this script"
}

# Whether the files of root number $1 lie in a cloud, from which azcopy has them copied without coming by here.
is_remote() { case ${roots[$1]} in https://* | http://*) ;; *) return 1 ;; esac }

check_tools() {
    local needed=az version number
    [ "$tool" = azcopy ] && needed=azcopy
    if [ "$needed" = azcopy ]; then
        command -v azcopy >/dev/null || fail 2 "azcopy is not installed, or not on PATH"
        version=$(azcopy --version 2>>"$log") || fail 2 "azcopy does not run; see $log"
        require_version azcopy 10.13 "${version##* }"
    fi
    if [ "$needed" = az ] || [ "$standalone" = yes ]; then
        command -v az >/dev/null || fail 2 "az (Azure CLI) is not installed, or not on PATH"
        version=$(az version --query '"azure-cli"' --output tsv 2>>"$log") || fail 2 "az does not run; see $log"
        require_version az 2.40 "$version"
    fi
    if [ "$standalone" = no ]; then
        if [ -n "${CHORUS_UPLOAD-}" ]; then chorus=("$CHORUS_UPLOAD"); fi
        "${chorus[@]}" --version >/dev/null 2>>"$log" ||
            fail 2 "chorus-upload does not run here (${chorus[*]}); a script for other machines is written with --standalone"
    fi
    for number in "${!roots[@]}"; do
        is_remote "$number" || [ -d "${roots[number]}" ] ||
            fail 2 "there is no directory ${roots[number]}: say with --root ${root_names[number]}=DIR where the files are"
    done
}

# Whether version $3 is $2 or newer, by its first two numbers.
require_version() {
    local have=${3%%[!0-9.]*} major minor
    major=${have%%.*}
    minor=${have#*.}
    minor=${minor%%.*}
    case $major$minor in '' | *[!0-9]*) fail 2 "the version of $1 cannot be understood: $3" ;; esac
    if [ "$major" -lt "${2%%.*}" ] || { [ "$major" -eq "${2%%.*}" ] && [ "$minor" -lt "${2##*.}" ]; }; then
        fail 2 "$1 $2 or newer is needed; this is $3"
    fi
}

check_token() {
    if [ "$login" = yes ]; then
        if [ "$tool" = azcopy ]; then export AZCOPY_AUTO_LOGIN_TYPE="${AZCOPY_AUTO_LOGIN_TYPE:-AZCLI}"; fi
        return
    fi
    if [ -z "${AZURE_STORAGE_SAS_TOKEN-}" ]; then
        [ -t 0 ] || fail 2 "AZURE_STORAGE_SAS_TOKEN is not set, and there is no terminal to ask for it"
        # Before anybody can begin to type: `read -s` comes too late for that.
        terminal=$(stty -g)
        stty -echo
        printf 'SAS token for %s: ' "$destination_url" >&2
        IFS= read -r AZURE_STORAGE_SAS_TOKEN
        stty "$terminal"
        terminal=
        say
    fi
    AZURE_STORAGE_SAS_TOKEN=${AZURE_STORAGE_SAS_TOKEN#\?}
    case $AZURE_STORAGE_SAS_TOKEN in
    *sig=*) ;;
    *) fail 2 "what was given is not a SAS token: there is no sig= in it" ;;
    esac
    export AZURE_STORAGE_SAS_TOKEN
}

# The results of earlier runs: `arrived[id]` is set for each file that is there.
read_results() {
    local id rest
    arrived=()
    if [ ! -e "$results" ]; then
        printf '%s\n' "$results_title" >"$results" || fail 1 "$results cannot be written"
        return
    fi
    IFS= read -r rest <"$results"
    [ "$rest" = "$results_title" ] || fail 1 "$results is not of this destination: move it away"
    while read -r id rest; do
        case $id in '' | *[!0-9]*) continue ;; esac
        arrived[id]=1
    done <"$results"
}

# --- The files --------------------------------------------------------------------------------------------------------

# One file: its number in the journal, its root, its size in bytes, what to do if there is one of that key already
# (keep, replace), where it lies below the root, and its key.
file() {
    seen=$((seen + 1))
    if [ -n "${arrived[$1]-}" ]; then
        there=$((there + 1))
        return
    fi
    local kind=$4
    # What is copied in one run comes from one root, and has the same before its path in all keys.
    if is_remote "$2"; then kind=$4:$2:${6%"$5"}; fi
    if [ "$batch_count" -ge "$batch_files" ] || [ $((batch_size + $3)) -gt "$batch_bytes" ] ||
        [ "$kind" != "${batch_kind-}" ]; then
        new_batch "$4" "$kind"
    fi
    batch_count=$((batch_count + 1))
    batch_size=$((batch_size + $3))
    printf '%s\0' "$1" "$2" "$3" "$5" "$6" >&3 || fail 1 "$work cannot be written"
}

new_batch() {
    batch=$((batch + 1)) batch_count=0 batch_size=0 batch_kind=$2
    exec 3>"$work/queue/$(printf '%08d' "$batch").$attempts.$1" || fail 1 "$work cannot be written"
}

finish() {
    exec 3>&-
    [ "$seen" -eq "$files_total" ] || fail 1 "this script is not complete: $seen of $files_total files are in it"
    say "$files_total files, $there of them have arrived already"
    if [ "$check_only" = yes ]; then
        say "all that is needed is here"
        exit 0
    fi
    if [ "$there" -lt "$files_total" ]; then
        take_lock
        upload
    elif [ "$standalone" = no ]; then
        take_lock
    fi
    report
}

upload() {
    local number
    pids=()
    for ((number = 1; number <= workers; number++)); do
        worker "$number" &
        pids+=($!)
    done
    for number in "${pids[@]}"; do wait "$number"; done
    pids=()
}

report() {
    local code=0 missing proven=0
    missing=$((files_total - there - $(cat "$work/sent/"* 2>/dev/null | wc -l)))
    cat "$work/failed/"* >"$failed" 2>/dev/null
    if [ "$standalone" = no ]; then
        say "checking what arrived, and recording it in the journal"
        "${chorus[@]}" --config "$config" file mark-as-uploaded --results "$results" || proven=$?
    fi
    if [ "$is_ours" = yes ]; then give_lock_back || code=1; fi
    if [ -e "$work/hopeless" ]; then say "nothing got through any more; $log has what $tool said"; fi
    if [ "$missing" -gt 0 ]; then
        code=3
        say "$missing of $files_total files have not arrived; why, is in $failed, or else in $log:"
        head -n 20 "$failed" >&2
    else
        rm -f "$failed"
        say "all $files_total files have arrived"
    fi
    if [ "$standalone" = yes ]; then
        say "to have them checked and recorded, where the journal is: chorus-upload file mark-as-uploaded --results $results"
    elif [ "$proven" -ne 0 ]; then
        code=$proven
    fi
    exit "$code"
}

# --- The workers ------------------------------------------------------------------------------------------------------

worker() {
    local entry name
    farm=$work/$1 list=$work/taken/$1 unlucky=0 child=
    trap - EXIT
    trap 'kill -TERM $child 2>/dev/null; exit 143' TERM
    trap '' INT HUP
    while entry=$(take); do
        name=${entry##*/}
        send "${name%%.*}" "${name##*.}" "$(cut -d. -f2 <<<"$name")"
    done
}

# Take a batch off the queue as `$list`, and print its name; fails when there is none or the run is to end.
take() {
    local entry
    for entry in "$work/queue/"*; do
        if [ -e "$work/stop" ] || ! kill -0 "$main" 2>/dev/null; then return 1; fi
        # Of several workers that try to move it, one can.
        if mv "$entry" "$list" 2>/dev/null; then
            printf '%s' "$entry"
            return 0
        fi
    done
    return 1
}

# Send the batch in `$list`: number $1, mode $2; it may be tried $3 times.
send() {
    local number=$1 mode=$2 tries=$3 try index
    read_list
    for ((try = 1; try <= tries; try++)); do
        make_farm
        [ "${#linked[@]}" -gt 0 ] || return
        if transfer "$mode"; then
            for index in "${linked[@]}"; do
                printf '%s %s\n' "${ids[index]}" "${keys[index]}" >>"$results" || fail 1 "$results cannot be written"
                printf '%s\n' "${ids[index]}" >>"$work/sent/${farm##*/}"
            done
            unlucky=0
            say "${#linked[@]} files have arrived"
            return
        fi
        [ -e "$work/stop" ] && return
        [ "$try" -lt "$tries" ] && pause $((retry_wait * (2 * try - 1)))
    done
    if [ "${#ids[@]}" -gt 1 ]; then
        split "$number" "$mode"
        return
    fi
    give_up "${ids[0]}" "${keys[0]}" "$tool failed: $(last_words)"
    unlucky=$((unlucky + 1))
    if [ "$unlucky" -ge "$hopeless" ]; then : >"$work/hopeless" && : >"$work/stop"; fi
}

read_list() {
    local id root size path key
    ids=() roots_of=() paths=() sizes=() keys=()
    while IFS= read -r -d '' id && IFS= read -r -d '' root && IFS= read -r -d '' size &&
        IFS= read -r -d '' path && IFS= read -r -d '' key; do
        ids+=("$id") roots_of+=("$root") paths+=("$path") sizes+=("$size") keys+=("$key")
    done <"$list"
}

# A directory in which every file of the batch is a link that is called as its key: no name has to be passed. For what
# is copied within the cloud, a list of the paths.
make_farm() {
    local index directory source
    rm -rf "$farm"
    mkdir "$farm"
    linked=()
    for index in "${!ids[@]}"; do
        [ -n "${ids[index]}" ] || continue
        source=${roots[${roots_of[index]}]}/${paths[index]}
        if is_remote "${roots_of[index]}"; then
            printf '%s\n' "${paths[index]}" >>"$farm/list" || fail 1 "$work cannot be written"
            linked+=("$index")
            continue
        elif [ ! -f "$source" ]; then
            give_up "${ids[index]}" "${keys[index]}" "there is no such file any more"
        elif [ "$(($(wc -c <"$source")))" != "${sizes[index]}" ]; then
            give_up "${ids[index]}" "${keys[index]}" "it has changed, or cannot be read: run \`journal update\`"
        else
            directory=$farm/files/${keys[index]}
            directory=${directory%/*}
            [ -d "$directory" ] || mkdir -p "$directory"
            ln -s "$source" "$farm/files/${keys[index]}" || fail 1 "$work cannot be written"
            linked+=("$index")
            continue
        fi
        ids[index]=
    done
}

# Halve a batch that does not get through, so that what is wrong with one file keeps no other.
split() {
    local number=$1 mode=$2 half=$((${#ids[@]} / 2)) index part=a left=$attempts
    for index in "${!ids[@]}"; do
        [ "$index" -eq "$half" ] && part=b
        [ -n "${ids[index]}" ] || continue
        printf '%s\0' "${ids[index]}" "${roots_of[index]}" "${sizes[index]}" "${paths[index]}" "${keys[index]}" \
            >>"$farm.$part"
    done
    [ "$half" -gt 1 ] && left=1
    for part in a b; do
        [ -e "$farm.$part" ] && mv "$farm.$part" "$work/queue/$number$part.$left.$mode"
    done
}

give_up() {
    printf '%s %s: %s\n' "$1" "$2" "$3" >>"$work/failed/${farm##*/}"
}

last_words() { LC_ALL=C tail -n 1 "$farm.said" 2>/dev/null | LC_ALL=C tr -d '\000-\037\177' | cut -c 1-200; }

# The token for what is copied from root number $1, without its question mark.
source_token() {
    local name=CHORUS_SOURCE_SAS_TOKEN_$1
    name=${!name-${CHORUS_SOURCE_SAS_TOKEN-}}
    printf '%s' "${name#\?}"
}

pause() {
    sleep "$1" &
    child=$!
    wait "$child"
}

# Run the tool over the directory of links; its words go to the log.
transfer() {
    local code overwrite=false root stem token
    [ "$1" = replace ] && overwrite=true
    root=${roots_of[${linked[0]}]}
    if is_remote "$root"; then
        stem=${keys[${linked[0]}]%"${paths[${linked[0]}]}"}
        token=$(source_token "$root")
        azcopy copy "${roots[root]}${token:+?$token}" \
            "$destination_url/${stem%/}${AZURE_STORAGE_SAS_TOKEN:+?$AZURE_STORAGE_SAS_TOKEN}" \
            --from-to BlobBlob --list-of-files "$farm/list" --as-subdir=false --recursive --s2s-preserve-access-tier=false \
            --s2s-detect-source-changed --check-length --overwrite "$overwrite" ${tier:+--block-blob-tier "$tier"} \
            --output-level essential --log-level ERROR ${options[@]+"${options[@]}"} >"$farm.said" 2>&1 &
    elif [ "$tool" = azcopy ]; then
        azcopy copy "$farm/files/*" "$destination_url${AZURE_STORAGE_SAS_TOKEN:+?$AZURE_STORAGE_SAS_TOKEN}" \
            --from-to LocalBlob --recursive --follow-symlinks --put-md5 --check-length --blob-type BlockBlob --overwrite "$overwrite" \
            ${tier:+--block-blob-tier "$tier"} \
            --output-level essential --log-level ERROR ${options[@]+"${options[@]}"} >"$farm.said" 2>&1 &
    else
        az storage blob upload-batch --source "$farm/files" --destination "$container" \
            ${prefix:+--destination-path "$prefix"} --overwrite "$overwrite" --type block --validate-content ${tier:+--tier "$tier"} \
            --no-progress --only-show-errors --output none "${to_destination[@]}" ${options[@]+"${options[@]}"} \
            >"$farm.said" 2>&1 &
    fi
    child=$!
    wait "$child"
    code=$?
    cat "$farm.said" >>"$log"
    return "$code"
}

# --- The lock ---------------------------------------------------------------------------------------------------------

take_lock() {
    local code
    if [ "$standalone" = no ]; then
        "${chorus[@]}" --config "$config" journal checkout || exit
        is_ours=yes
        return
    fi
    # The note is written first, so that after a kill the lock is known for ours.
    [ -s "$lock_note" ] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$lock_note" || fail 1 "$lock_note cannot be written"
    write_lock >"$work/lock.json"
    if az_journal upload --file "$work/lock.json" --name "$journal_key.locked" --overwrite false --if-none-match '*' \
        --no-progress --output none 2>"$work/said" || holds_lock; then
        is_ours=yes
        return
    fi
    cat "$work/said" >>"$log"
    rm -f "$lock_note"
    [ -e "$work/theirs" ] || fail 1 "the lock of the journal could not be taken: $(tail -n 1 "$work/said")"
    say "the journal is locked:"
    head -c 1000 "$work/theirs" | LC_ALL=C tr -d '\000-\011\013-\037\177' >&2
    say
    fail 10 "somebody else has the journal; wait, or ask that person"
}

# Whether the lock that is there is ours; leaves it as $work/theirs.
holds_lock() {
    az_journal download --name "$journal_key.locked" --file "$work/theirs" --no-progress --output none 2>>"$log" &&
        grep -qF "\"id\": \"$(cat "$lock_note")\"" "$work/theirs"
}

give_lock_back() {
    local etag
    is_ours=no
    if [ "$standalone" = no ]; then
        "${chorus[@]}" --config "$config" journal checkin
    elif etag=$(az_journal show --name "$journal_key.locked" --query properties.etag --output tsv 2>>"$log") &&
        holds_lock &&
        az_journal delete --name "$journal_key.locked" --if-match "$(tr -d '\r' <<<"$etag")" --output none 2>>"$log"; then
        rm -f "$lock_note"
    else
        say "the lock of the journal could not be given back; see $log"
        return 1
    fi
}

az_journal() {
    local verb=$1
    shift
    AZURE_STORAGE_SAS_TOKEN=${CHORUS_JOURNAL_SAS_TOKEN-${AZURE_STORAGE_SAS_TOKEN-}} \
        az storage blob "$verb" --container-name "$journal_container" "${to_journal[@]}" --only-show-errors "$@"
}

write_lock() {
    local now
    now=$(date +%s)000000
    cat <<END
{
  "id": "$(cat "$lock_note")",
  "owner": "$(plain "$(id -un)")",
  "host": "$(plain "$(uname -n)")",
  "process": $$,
  "since_us": $now,
  "renewed_us": $now,
  "tool_version": "$tool_version",
  "journal_etag": null,
  "by_hand": true
}
END
}

plain() { LC_ALL=C tr -cd 'A-Za-z0-9._@-' <<<"$1"; }

# --- Endings ----------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2329 # by trap
stopped() {
    say "stopping; run it again to go on"
    exit "$1"
}

# shellcheck disable=SC2329 # by trap
leave() {
    local code=$? number
    trap '' INT TERM HUP
    if [ -n "${terminal-}" ]; then stty "$terminal"; fi
    : >"$work/stop"
    for number in ${pids[@]+"${pids[@]}"}; do kill -TERM "$number" 2>/dev/null; done
    wait
    if [ "$is_ours" = yes ]; then give_lock_back || code=1; fi
    rm -rf "$work"
    exit "$code"
}

begin "$@"

# --- The list ---------------------------------------------------------------------------------------------------------

