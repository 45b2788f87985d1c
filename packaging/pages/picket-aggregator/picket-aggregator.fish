# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_picket_aggregator_global_optspecs
    string join \n c/config= h/help V/version
end

function __fish_picket_aggregator_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_picket_aggregator_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_picket_aggregator_using_subcommand
    set -l cmd (__fish_picket_aggregator_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -s c -l config -d 'The configuration file; without one, the defaults and the environment' -r -F
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -s h -l help -d 'Print help'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -s V -l version -d 'Print version'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -f -a "run" -d 'Serve (what it does without a command)'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -f -a "init" -d 'Make a CA and an admin\'s API token in the state folder. Never overwrites'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -f -a "check-config" -d 'Read the configuration and say what it would do'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -f -a "token" -d 'Make an API token in the state folder, whether the aggregator runs or not'
complete -c picket-aggregator -n "__fish_picket_aggregator_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand run" -s c -l config -d 'The configuration file; without one, the defaults and the environment' -r -F
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand run" -s h -l help -d 'Print help'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand init" -s c -l config -d 'The configuration file; without one, the defaults and the environment' -r -F
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand init" -l if-needed -d 'Do nothing where that was done before: for what runs at every start'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand init" -s h -l help -d 'Print help'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand check-config" -s c -l config -d 'The configuration file; without one, the defaults and the environment' -r -F
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand token" -l role -r
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand token" -l name -d 'What the token is called in lists' -r
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand token" -l ttl -d 'How long it is good, as 12h or 30d; for ever without' -r
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand token" -s c -l config -d 'The configuration file; without one, the defaults and the environment' -r -F
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand token" -s h -l help -d 'Print help'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand help; and not __fish_seen_subcommand_from run init check-config token help" -f -a "run" -d 'Serve (what it does without a command)'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand help; and not __fish_seen_subcommand_from run init check-config token help" -f -a "init" -d 'Make a CA and an admin\'s API token in the state folder. Never overwrites'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand help; and not __fish_seen_subcommand_from run init check-config token help" -f -a "check-config" -d 'Read the configuration and say what it would do'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand help; and not __fish_seen_subcommand_from run init check-config token help" -f -a "token" -d 'Make an API token in the state folder, whether the aggregator runs or not'
complete -c picket-aggregator -n "__fish_picket_aggregator_using_subcommand help; and not __fish_seen_subcommand_from run init check-config token help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
