#!/usr/bin/env bash
#
# Uploads files to Azure Blob Storage with Microsoft's own tools: no more than what is listed at the end of this
# script, and each to the name that stands there.
#
#     bash upload.sh              upload what has not arrived yet
#     bash upload.sh --help       the options
#
# It needs bash (3.2 or newer), the usual small programs of a Unix, and az or azcopy, as it says when they are missing.
# The token comes from the environment (AZURE_STORAGE_SAS_TOKEN) or is asked for; it is in no file. azcopy has no other
# way to take a token than its command line, where others on this machine can see it while it runs; az has.
#
# Stop it with Ctrl-C or kill, at any time, and run it again: it goes on with what is missing. Beside the script it
# keeps what arrived (.results), what did not and why (.failed), and what the tools said (.log).
#
# Exit codes: 0 everything is there; 2 a program, an option or the token is missing, or the token does not permit this;
# 3 some files are not there or did not prove right; 10 somebody else has the journal; 129, 130, 131, 141 or 143 it was
# stopped; 1 anything else.

# The settings are written into this text, and a name may look as if it wanted to be expanded:
# shellcheck disable=SC2154,SC2016

if [ -z "${BASH_VERSION-}" ]; then
    echo "error: this is a script for bash: bash $0" >&2
    exit 2
fi

# @settings@

set -u -o pipefail
umask 077
# Certificates are always checked; and the data goes where this script says, not to an account that the environment or
# ~/.azure/config names. Set and empty: what is not set at all would be taken from that file.
unset AZURE_CLI_DISABLE_CONNECTION_VERIFICATION ADAL_PYTHON_SSL_NO_VERIFY
export AZURE_STORAGE_CONNECTION_STRING='' AZURE_STORAGE_KEY='' AZURE_STORAGE_ACCOUNT='' AZURE_STORAGE_AUTH_MODE=key
export AZURE_CORE_COLLECT_TELEMETRY=0

readonly attempts=3
readonly hopeless=5
# So many files that the service refused, each by itself, while nothing has arrived: then it refuses all.
readonly refused_enough=3
# What az and azcopy say when the service does not admit them: it helps nothing to ask again.
readonly refusals='required permissions needed to perform|blocked by network rules|AuthenticationFailed|AuthorizationFailure|Authorization[A-Za-z]*Mismatch|InvalidAuthenticationInfo|NoAuthenticationInformation|PublicAccessNotPermitted|ContainerNotFound|AccountIsDisabled|AADSTS[0-9]|az login'

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
            case ${2-} in '' | *[!0-9]* | ?????*) fail 2 "$1 needs a number" ;; esac
            if [ "$1" = --workers ]; then workers=$((10#$2)); else retry_wait=$((10#$2)); fi
            [ "$workers" -gt 0 ] || fail 2 "--workers needs a number above 0"
            shift 2
            ;;
        --root)
            name=${2-}
            case $name in *?=?*) ;; *) fail 2 "--root needs NAME=DIR" ;; esac
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
    [ -f "$script" ] || fail 2 "this script keeps files beside it: run it as bash FILE"
    readonly results=$script.results failed=$script.failed log=$script.log lock_note=$script.lock \
        running=$script.running
    is_ours=no is_sole=no work=
    trap leave EXIT
    trap 'stopped 130' INT
    trap 'stopped 131' QUIT
    trap 'stopped 143' TERM
    trap 'stopped 129' HUP
    trap 'stopped 141' PIPE
    work=$(mktemp -d "${TMPDIR:-/tmp}/chorus-upload.XXXXXX") || fail 1 "no temporary directory can be made"
    readonly main script work
    at_work "$main"
    remove_left_behind
    mkdir "$work/queue" "$work/taken" "$work/sent" "$work/failed" "$work/refused"
    : >>"$log" || fail 1 "$log cannot be written"
    be_sole
    check_work
    check_tools
    check_token
    read_results
    seen=0 there=0 batch=0 batch_count=0 batch_size=0
}

# Note a process that works with the temporary directory: nobody removes that while one of them is there.
at_work() { printf '%s %s\n' "$1" "$(uname -n)" >>"$work/processes"; }

# A script that was killed could not remove its directory of links. Ours are those that this user made and that say so,
# and a directory is dead when all that worked with it were on this machine and are gone.
remove_left_behind() {
    local directory process host is_dead
    for directory in "${TMPDIR:-/tmp}"/chorus-upload.??????; do
        if [ "$directory" = "$work" ] || [ -L "$directory" ] || [ ! -O "$directory" ] || [ ! -s "$directory/processes" ]; then
            continue
        fi
        is_dead=yes
        while read -r process host; do
            case $process in '' | *[!0-9]*) is_dead=no ;; esac
            if [ "$host" != "$(uname -n)" ] || kill -0 "$process" 2>/dev/null; then is_dead=no; fi
        done <"$directory/processes"
        if [ "$is_dead" = yes ]; then
            say "removing $directory, which a script that was killed has left"
            rm -rf "$directory"
        fi
    done
}

# Two runs at once would take the journal's lock from each other.
be_sole() {
    local other
    if ! mkdir "$running" 2>/dev/null; then
        other=$(cat "$running/process" 2>/dev/null)
        if [ "${other#* }" != "$(uname -n)" ] || kill -0 "${other%% *}" 2>/dev/null; then
            fail 1 "this script is running already (process ${other% *} on ${other#* }); if it is not, remove $running"
        fi
    fi
    is_sole=yes
    printf '%s %s' "$$" "$(uname -n)" >"$running/process" || fail 1 "$running cannot be written"
}

# Links are called as their keys, so a directory that cannot tell A from a can have only one of them at once.
check_work() {
    : >"$work/case"
    if [ -e "$work/CASE" ]; then batch_files=1; fi
    if [ "$tool" = azcopy ]; then
        case $work in *[!A-Za-z0-9/._\ +=,@~-]*) fail 2 "azcopy takes $work for a pattern: set TMPDIR to a plain name" ;; esac
    fi
}

set_root() {
    local number
    for number in "${!root_names[@]}"; do
        if [ "${root_names[number]}" = "$1" ]; then
            ! is_remote "$number" || fail 2 "--root $1: these files are copied from ${roots[number]}"
            [ -d "$2" ] || fail 2 "--root $1: there is no directory $2"
            # Not relative: the links to the files are somewhere else.
            roots[number]=$(cd "$2" && pwd -P) || fail 2 "--root $1: $2 cannot be entered"
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
        unset AZURE_STORAGE_SAS_TOKEN CHORUS_JOURNAL_SAS_TOKEN
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
    CHORUS_JOURNAL_SAS_TOKEN=${CHORUS_JOURNAL_SAS_TOKEN-$AZURE_STORAGE_SAS_TOKEN}
    CHORUS_JOURNAL_SAS_TOKEN=${CHORUS_JOURNAL_SAS_TOKEN#\?}
    local number name needs=wc
    # azcopy looks first at what is there.
    if [ "$tool" = azcopy ]; then needs=rwc; fi
    require_token AZURE_STORAGE_SAS_TOKEN "$AZURE_STORAGE_SAS_TOKEN" "$needs"
    # The lock of the journal is made, read and deleted.
    if [ "$standalone" = yes ]; then require_token CHORUS_JOURNAL_SAS_TOKEN "$CHORUS_JOURNAL_SAS_TOKEN" rwcd; fi
    for number in "${!roots[@]}"; do
        if is_remote "$number" && [ -n "$(source_token "$number")" ]; then
            name=CHORUS_SOURCE_SAS_TOKEN_$number
            [ -n "${!name-}" ] || name=CHORUS_SOURCE_SAS_TOKEN
            require_token "$name" "$(source_token "$number")" r
        fi
    done
    export AZURE_STORAGE_SAS_TOKEN
}

# Whether the token $2 of the variable $1 is complete, permits what the letters $3 stand for (w or c will do where both
# are asked for), and is valid now. What it does not say, a policy of the container says.
require_token() {
    local moment now permitted
    case $2 in
    *[!A-Za-z0-9%\&=_.~:/+-]*) fail 2 "$1 is not a SAS token: quotes, blanks or other characters do not belong to one" ;;
    *sig=*) ;;
    *) fail 2 "$1 is not a SAS token: there is no sig= in it" ;;
    esac
    now=$(date -u +%Y%m%d%H%M%S)
    moment=$(moment_in "$(part_of "$2" se)")
    if [ -n "$moment" ] && [ "$moment" -le "$now" ]; then
        fail 2 "$1: the SAS token has expired, since $(in_words "$moment"); ask for a new one"
    fi
    moment=$(moment_in "$(part_of "$2" st)")
    if [ -n "$moment" ] && [ "$moment" -gt "$now" ]; then
        fail 2 "$1: the SAS token is not valid before $(in_words "$moment"); is the clock of this machine right?"
    fi
    permitted=$(part_of "$2" sp)
    [ -n "$permitted" ] || return 0
    case $3 in *wc*) case $permitted in *[wc]*) ;; *) not_permitted "$1" "$permitted" "create or write (c, w)" ;; esac ;; esac
    case $3 in *r*) case $permitted in *r*) ;; *) not_permitted "$1" "$permitted" "read (r)" ;; esac ;; esac
    case $3 in *d*) case $permitted in *d*) ;; *) not_permitted "$1" "$permitted" "delete (d)" ;; esac ;; esac
}

not_permitted() { fail 2 "$1: the SAS token does not permit to $3; it has sp=$2. Ask for one that does"; }

# The part $2 of the token $1, nothing if there is none.
part_of() {
    local rest=\&$1
    case $rest in *"&$2="*) ;; *) return 0 ;; esac
    rest=${rest#*"&$2="}
    printf '%s' "${rest%%&*}"
}

# The moment $1 of a token, in UTC, as YYYYMMDDHHMMSS; nothing where it is written in another way.
moment_in() {
    local text=${1//%3[Aa]/:} digits
    text=${text//%2[Bb]/+}
    case $text in
    ????-??-?? | ????-??-??T??:*Z) ;;
    ????-??-??T??:*[+-]*)
        # GNU's date understands it as it is, that of macOS in one form only.
        date -u -d "$text" +%Y%m%d%H%M%S 2>/dev/null && return 0
        digits=${text: -6}
        date -u -j -f %Y-%m-%dT%H:%M:%S%z "${text%??????}${digits/:/}" +%Y%m%d%H%M%S 2>/dev/null
        return 0
        ;;
    *) return 0 ;;
    esac
    text=${text%%.*}
    digits=${text//[!0-9]/}000000
    case ${#digits} in 14 | 18 | 20) printf '%.14s' "$digits" ;; esac
}

in_words() { printf '%.4s-%.2s-%.2s %.2s:%.2s UTC' "$1" "${1:4}" "${1:6}" "${1:8}" "${1:10}"; }

# The results of earlier runs: `arrived[id]` is the key of each file that is there.
read_results() {
    local line id
    arrived=()
    if [ ! -s "$results" ]; then
        printf '%s\n' "$results_title" >"$results" || fail 1 "$results cannot be written"
        return
    fi
    IFS= read -r line <"$results"
    [ "${line%$'\r'}" = "$results_title" ] || fail 1 "$results is not of this destination: move it away"
    # A line that was cut short must not become one with the next.
    if [ -n "$(tail -c 1 "$results")" ]; then printf '\n' >>"$results" || fail 1 "$results cannot be written"; fi
    while IFS= read -r line; do
        line=${line%$'\r'}
        id=${line%% *}
        case $id in '' | 0* | *[!0-9]* | ????????????????*) continue ;; esac
        arrived[id]=${line#"$id"}
    done <"$results"
}

# --- The files --------------------------------------------------------------------------------------------------------

# One file: its number in the journal, its root, its size in bytes, what to do if there is one of that key already (keep
# it, or replace the one with this etag, which is an earlier state of the file), where it lies below the root, its key.
file() {
    seen=$((seen + 1))
    # Numbers alone do not tell the files of different journals apart.
    if [ "${arrived[$1]-}" = " $6" ]; then
        there=$((there + 1))
        return
    fi
    local kind=$4
    # What is copied in one run comes from one root, and has the same before its path in all keys.
    if is_remote "$2"; then kind=$4:$2:${6%"$5"}; fi
    if [ "$4" != keep ] || [ "$batch_count" -ge "$batch_files" ] || [ $((batch_size + $3)) -gt "$batch_bytes" ] ||
        [ "$kind" != "${batch_kind-}" ]; then
        new_batch "$kind"
    fi
    batch_count=$((batch_count + 1))
    batch_size=$((batch_size + $3))
    printf '%s\0' "$@" >&3 || fail 1 "$work cannot be written"
}

# A batch is a file with such lists of words, called by its place in the queue and how often it may be tried.
new_batch() {
    batch=$((batch + 1)) batch_count=0 batch_size=0 batch_kind=$1
    exec 3>"$work/queue/$(printf '%08d' "$batch").$attempts" || fail 1 "$work cannot be written"
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
    elif [ "$standalone" = no ] || [ -s "$lock_note" ]; then
        take_lock
    fi
    report
}

upload() {
    local number index
    pids=()
    for ((number = 1; number <= workers; number++)); do
        worker "$number" &
        pids+=($!)
        at_work "$!"
    done
    for number in "${pids[@]}"; do wait "$number"; done
    pids=()
    # What a worker had that did not come to its end.
    for number in "$work/taken/"*; do
        [ -s "$number" ] || continue
        farm=$number list=$number
        read_list
        for index in "${!ids[@]}"; do give_up "${ids[index]}" "${keys[index]}" "its worker ended; see $log"; done
    done
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
    if [ -e "$work/expired" ]; then say "the SAS token has expired meanwhile: ask for a new one, and run this again"; fi
    if [ -e "$work/hopeless" ]; then say "nothing got through any more: $(cat "$work/hopeless"); $log has what $tool said"; fi
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
    local entry
    farm=$work/$1 list=$work/taken/$1 unlucky=0 child=
    trap - EXIT
    # A process group for each run of a tool: az may be a program that starts another one.
    set -m
    trap '[ -z "$child" ] || { kill -TERM -- "-$child"; wait "$child"; } 2>/dev/null; exit 143' TERM
    trap '' INT QUIT HUP
    while entry=$(take); do
        entry=${entry##*/}
        send "${entry%.*}" "${entry##*.}"
        : >"$list"
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

# Send the batch in `$list`: its place is $1, and it may be tried $2 times.
send() {
    local place=$1 tries=$2 try index
    read_list
    for ((try = 1; try <= tries; try++)); do
        make_farm
        put_off "$place"
        [ "${#linked[@]}" -gt 0 ] || return
        if transfer; then
            for index in "${linked[@]}"; do
                # What was swapped for a link while the tool was at it has not arrived as it was listed.
                if ! is_remote "${roots_of[index]}" && leads_elsewhere "${roots_of[index]}" "${paths[index]}"; then
                    give_up "${ids[index]}" "${keys[index]}" "it was swapped for a link while it was sent"
                    continue
                fi
                printf '%s %s\n' "${ids[index]}" "${keys[index]}" >>"$results" || fail 1 "$results cannot be written"
                printf '%s\n' "${ids[index]}" >>"$work/sent/${farm##*/}"
            done
            unlucky=0
            say "${#linked[@]} files have arrived"
            return
        fi
        [ -e "$work/stop" ] && return
        if is_refused; then break; fi
        [ "$try" -lt "$tries" ] && pause $((retry_wait * (2 * try - 1)))
    done
    if has_expired; then
        : >"$work/expired"
        : >"$work/stop"
        return
    fi
    if [ "${#linked[@]}" -gt 1 ]; then
        split "$place"
        return
    fi
    index=${linked[0]}
    give_up "${ids[index]}" "${keys[index]}" "$tool failed: $(last_words)"
    unlucky=$((unlucky + 1))
    if is_refused; then : >"$work/refused/${ids[index]}"; fi
    # While something arrives, what is refused is refused for reasons of its own.
    if nothing_arrived && { [ "$unlucky" -ge "$hopeless" ] || is_all_refused; }; then
        last_words >"$work/hopeless"
        : >"$work/stop"
    fi
}

nothing_arrived() { [ -z "$(cat "$work/sent/"* 2>/dev/null)" ]; }

# Whether the service itself has refused the last run, in words that are not about one file.
is_refused() { grep -aqE "$refusals" "$farm.said" 2>/dev/null; }

is_all_refused() {
    local refused=("$work/refused/"*)
    [ "${#refused[@]}" -ge "$refused_enough" ]
}

has_expired() {
    [ "$login" = no ] || return 1
    local moment
    moment=$(moment_in "$(part_of "$AZURE_STORAGE_SAS_TOKEN" se)")
    [ -n "$moment" ] && [ "$moment" -le "$(date -u +%Y%m%d%H%M%S)" ]
}

read_list() {
    local id root size mode path key
    ids=() roots_of=() sizes=() modes=() paths=() keys=()
    while IFS= read -r -d '' id && IFS= read -r -d '' root && IFS= read -r -d '' size &&
        IFS= read -r -d '' mode && IFS= read -r -d '' path && IFS= read -r -d '' key; do
        ids+=("$id") roots_of+=("$root") sizes+=("$size") modes+=("$mode") paths+=("$path") keys+=("$key")
    done <"$list"
}

# Append the file of that index to the batch $2.
enlist() {
    printf '%s\0' "${ids[$1]}" "${roots_of[$1]}" "${sizes[$1]}" "${modes[$1]}" "${paths[$1]}" "${keys[$1]}" >>"$2"
}

# Whether what is at path $2 of root number $1 lies behind a link: one to a directory, or to a file outside of the root.
leads_elsewhere() {
    local at=${roots[$1]} rest=$2 real
    [ "${follows[$1]}" = no ] || return 1
    while [ "$rest" != "${rest#*/}" ]; do
        at=$at/${rest%%/*} rest=${rest#*/}
        [ ! -L "$at" ] || return 0
    done
    [ -L "$at/$rest" ] || return 1
    real=$(readlink -f -- "$at/$rest") && case $real in "$(cd "${roots[$1]}" && pwd -P)"/*) return 1 ;; esac
    return 0
}

# A directory in which every file of the batch is a link that is called as its key: no name has to be passed. For what
# is copied within the cloud, a list of the paths. Leaves the indices of what is in it in `linked`, and in `later` those
# of files that cannot stand beside the others: the key of one is a directory of another's.
make_farm() {
    local index source link
    rm -rf "$farm"
    mkdir "$farm" || fail 1 "$work cannot be written"
    linked=() later=()
    for index in "${!ids[@]}"; do
        [ -n "${ids[index]}" ] || continue
        source=${roots[${roots_of[index]}]}/${paths[index]}
        link=$farm/files/${keys[index]}
        if is_remote "${roots_of[index]}"; then
            printf '%s\n' "${paths[index]}" >>"$farm/list" || fail 1 "$work cannot be written"
            linked+=("$index")
        elif leads_elsewhere "${roots_of[index]}" "${paths[index]}"; then
            give_up "${ids[index]}" "${keys[index]}" "there is a link in its way that leads elsewhere: run \`journal update\`"
            ids[index]=
        elif [ ! -f "$source" ]; then
            give_up "${ids[index]}" "${keys[index]}" "there is no such file any more"
            ids[index]=
        elif [ "$(($(wc -c <"$source")))" != "${sizes[index]}" ]; then
            give_up "${ids[index]}" "${keys[index]}" "it has changed, or cannot be read: run \`journal update\`"
            ids[index]=
        elif { [ -d "${link%/*}" ] || mkdir -p "${link%/*}" 2>/dev/null; } && [ ! -e "$link" ] && [ ! -L "$link" ] &&
            ln -s "$source" "$link" 2>/dev/null; then
            linked+=("$index")
        else
            later+=("$index")
        fi
    done
}

# What cannot stand beside the others goes alone, later; what cannot stand alone does not go at all.
put_off() {
    local index
    for index in ${later[@]+"${later[@]}"}; do
        if [ "${#linked[@]}" -eq 0 ]; then
            give_up "${ids[index]}" "${keys[index]}" "no link can be made to it in $work"
        else
            enlist "$index" "$farm.later"
            mv "$farm.later" "$work/queue/9$1x$index.$attempts"
        fi
        ids[index]=
    done
}

# Halve a batch that does not get through, so that what is wrong with one file keeps no other. The halves go to the end
# of the queue: what is wrong may be wrong with many. Of one that was refused, while nothing has arrived, some files go
# by themselves at once: that shows whether all are refused.
split() {
    local index half=$((${#linked[@]} / 2)) count=0 part=a left=$attempts
    if nothing_arrived && is_refused; then
        for index in "${linked[@]}"; do
            count=$((count + 1))
            part=rest
            if [ "$count" -le "$refused_enough" ]; then part=$count; fi
            enlist "$index" "$farm.$part"
        done
        for ((part = 1; part <= count && part <= refused_enough; part++)); do mv "$farm.$part" "$work/queue/0$1x$part.1"; done
        if [ -e "$farm.rest" ]; then mv "$farm.rest" "$work/queue/9$1r.$attempts"; fi
        return
    fi
    for index in "${linked[@]}"; do
        [ "$count" -eq "$half" ] && part=b
        enlist "$index" "$farm.$part"
        count=$((count + 1))
    done
    [ "$half" -gt 1 ] && left=1
    for part in a b; do mv "$farm.$part" "$work/queue/9$1$part.$left"; done
}

give_up() {
    printf '%s %s: %s\n' "$1" "$2" "$3" >>"$work/failed/${farm##*/}"
}

last_words() {
    { grep -aE 'ErrorCode:|ERROR CODE:' "$farm.said" || grep -av '^[[:space:]]*$' "$farm.said"; } 2>/dev/null | tail -n 1 |
        LC_ALL=C tr -d '\000-\037\177' | cut -c 1-200
}

# Waiting for a child of ours a signal can interrupt, and sleeping ourselves it cannot.
pause() {
    sleep "$1" &
    child=$!
    wait "$child"
    child=
}

# Run the tool over what `make_farm` made; its words go to the log. Fails unless it accounts for every file.
transfer() {
    local code=0 overwrite=false etag=${modes[${linked[0]}]} root=${roots_of[${linked[0]}]} stem token
    if [ "$etag" = keep ]; then etag=; else overwrite=true; fi
    : >"$farm.count"
    # What azcopy says of a refusal is only there.
    export AZCOPY_LOG_LOCATION="$farm.azcopy"
    rm -rf "$farm.azcopy"
    if is_remote "$root"; then
        stem=${keys[${linked[0]}]%"${paths[${linked[0]}]}"}
        token=$(source_token "$root")
        azcopy copy "${roots[root]}${token:+?$token}" \
            "$azcopy_url/${stem%/}${AZURE_STORAGE_SAS_TOKEN:+?$AZURE_STORAGE_SAS_TOKEN}" \
            --from-to BlobBlob --list-of-files "$farm/list" --as-subdir=false --recursive \
            --s2s-preserve-access-tier=false --s2s-detect-source-changed --check-length --overwrite "$overwrite" \
            ${tier:+--block-blob-tier "$tier"} --output-level essential --log-level ERROR \
            ${trusted:+--trusted-microsoft-suffixes "$trusted"} ${options[@]+"${options[@]}"} \
            </dev/null >"$farm.said" 2>&1 &
    elif [ "$tool" = azcopy ]; then
        azcopy copy "$farm/files/*" "$azcopy_url${AZURE_STORAGE_SAS_TOKEN:+?$AZURE_STORAGE_SAS_TOKEN}" \
            --from-to LocalBlob --recursive --follow-symlinks --put-md5 --check-length --blob-type BlockBlob \
            --overwrite "$overwrite" ${tier:+--block-blob-tier "$tier"} --output-level essential --log-level ERROR \
            ${trusted:+--trusted-microsoft-suffixes "$trusted"} ${options[@]+"${options[@]}"} \
            </dev/null >"$farm.said" 2>&1 &
    else
        az storage blob upload-batch --source "$farm/files" --destination "$container" \
            ${prefix:+--destination-path "$prefix"} --overwrite "$overwrite" ${etag:+--if-match "\"$etag\""} \
            --type block --validate-content ${tier:+--tier "$tier"} --no-progress --only-show-errors \
            --query 'length(@)' --output tsv "${to_destination[@]}" ${options[@]+"${options[@]}"} \
            </dev/null >"$farm.count" 2>"$farm.said" &
    fi
    child=$!
    at_work "$child"
    wait "$child" || code=$?
    child=
    if [ "$tool" = azcopy ]; then grep -ahE '^ *ERROR CODE:' "$farm.azcopy/"*.log 2>/dev/null | sort -u >>"$farm.said"; fi
    cat "$farm.said" >>"$log"
    if [ "$code" -eq 0 ] && [ "$(accounted_for "$overwrite")" -eq "${#linked[@]}" ]; then return 0; fi
    if is_remote "$root" && [ -n "${root_fronts[root]-}" ] && [ "${roots[root]}" != "${root_fronts[root]}" ]; then
        say "nothing could be copied from ${roots[root]} ($(last_words)); trying ${root_fronts[root]}"
        roots[root]=${root_fronts[root]}
        rm -f "$farm.said"
    fi
    return 1
}

# How many files the tool says that it has sent, or left because there is one of that key already: both tools end with 0
# also when they have passed over some for other reasons.
accounted_for() {
    local sent there=0
    if [ "$tool" = azcopy ]; then
        sent=$(sed -n 's/^Number of File Transfers Completed: \([0-9]*\).*/\1/p' "$farm.said")
        there=$(sed -n 's/^Number of File Transfers Skipped: \([0-9]*\).*/\1/p' "$farm.said")
    else
        sent=$(tr -cd '0-9' <"$farm.count")
        there=$(grep -ac '^ErrorCode:BlobAlreadyExists' "$farm.said")
    fi
    # What is to be replaced must not be left.
    [ "$1" = false ] || there=0
    printf '%s' "$((${sent:-0} + ${there:-0}))"
}

# The token for what is copied from root number $1, without its question mark.
source_token() {
    local name=CHORUS_SOURCE_SAS_TOKEN_$1
    name=${!name-${CHORUS_SOURCE_SAS_TOKEN-}}
    printf '%s' "${name#\?}"
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
        --no-progress --output none >/dev/null 2>"$work/said" || holds_lock; then
        is_ours=yes
        return
    fi
    cat "$work/said" >>"$log"
    # If it cannot even be looked at it may be ours.
    [ -s "$work/theirs" ] || fail 1 "the lock of the journal could not be taken: $(tail -n 1 "$work/said")"
    rm -f "$lock_note"
    say "the journal is locked:"
    head -c 1000 "$work/theirs" | LC_ALL=C tr -d '\000-\011\013-\037\177' >&2
    say
    fail 10 "somebody else has the journal; wait, or ask that person"
}

# Whether the lock that is there is ours; leaves it as $work/theirs.
holds_lock() {
    az_journal download --name "$journal_key.locked" --file "$work/theirs" --no-progress --output none \
        >/dev/null 2>>"$log" &&
        grep -qF "\"id\": \"$(cat "$lock_note")\"" "$work/theirs"
}

give_lock_back() {
    local etag
    is_ours=no
    if [ "$standalone" = no ]; then
        "${chorus[@]}" --config "$config" journal checkin
    elif etag=$(az_journal show --name "$journal_key.locked" --query properties.etag --output tsv 2>>"$log") &&
        holds_lock &&
        az_journal delete --name "$journal_key.locked" --if-match "$(tr -d '\r' <<<"$etag")" --output none \
            >/dev/null 2>>"$log"; then
        rm -f "$lock_note"
    else
        say "the lock of the journal could not be given back; see $log"
        return 1
    fi
}

az_journal() {
    local verb=$1
    shift
    AZURE_STORAGE_SAS_TOKEN=${CHORUS_JOURNAL_SAS_TOKEN-} \
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
    trap '' PIPE
    say "stopping; run it again to go on"
    exit "$1"
}

# shellcheck disable=SC2329 # by trap
leave() {
    local code=$? number
    trap '' INT QUIT TERM HUP PIPE
    if [ -n "${terminal-}" ]; then stty "$terminal"; fi
    if [ -z "$work" ]; then exit "$code"; fi
    : >"$work/stop"
    for number in ${pids[@]+"${pids[@]}"}; do kill -TERM "$number" 2>/dev/null; done
    wait
    if [ "$is_ours" = yes ]; then give_lock_back || code=1; fi
    if [ "$is_sole" = yes ]; then rm -rf "$running"; fi
    rm -rf "$work"
    exit "$code"
}

begin "$@"

# --- The list ---------------------------------------------------------------------------------------------------------

