# Completes `python -m harness`; made by `python -m harness completion`.

# Words after an option, or what a command may be followed by.
_length_harness_words() {
    case "$1" in
@CASES@
        *) return 1 ;;
    esac
}

_length_harness() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" before kind words command
    COMPREPLY=()
    if [[ "${COMP_WORDS[1]}" != -m || "${COMP_WORDS[2]}" != harness || $COMP_CWORD -lt 3 ]]; then
        [[ -n "$_length_harness_other" ]] && "$_length_harness_other" "$@"
        return
    fi
    if [[ "$cur" == "=" ]]; then  # --patch=nt is three words
        cur=""
    elif [[ "$prev" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    cur="${cur#[\'\"]}"
    command="${COMP_WORDS[3]}"
    if [[ $COMP_CWORD -eq 3 || "$command" == -* ]]; then
        command=@DEFAULT@
    elif [[ $COMP_CWORD -gt 4 ]] && _length_harness_words "$command ${COMP_WORDS[4]}" >/dev/null; then
        command="$command ${COMP_WORDS[4]}"
    fi
    if [[ "$prev" == -* ]] && words="$(_length_harness_words "$prev")"; then
        kind="${words%%:*}" words="${words#*:}"
    elif [[ "$cur" == -* ]]; then
        kind=words words="$(_length_harness_words "$command --")"
    elif [[ $COMP_CWORD -eq 3 ]]; then
        kind=words words="$(_length_harness_words commands)"
    else
        words="$(_length_harness_words "$command")"
        kind="${words%%:*}" words="${words#*:}"
    fi
    case "$kind" in
        list)
            before="${cur%"${cur##*[,+]}"}"
            cur="${cur##*[,+]}"
            compopt -o nospace 2>/dev/null
            COMPREPLY=($(compgen -P "$before" -W "$words" -- "$cur"))
            ;;
        words) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
        text) compopt +o default +o bashdefault 2>/dev/null ;;  # no file names
    esac
}

# What completed python before; sourced again, this finds itself there.
_length_harness_before="$(complete -p python 2>/dev/null)"
case "$_length_harness_before" in
    *"-F _length_harness "*) ;;
    *"-F "*)
        _length_harness_other="${_length_harness_before##*-F }"
        _length_harness_other="${_length_harness_other%% *}"
        ;;
    *) _length_harness_other="" ;;
esac
unset _length_harness_before
complete -o bashdefault -o default -F _length_harness python python3
