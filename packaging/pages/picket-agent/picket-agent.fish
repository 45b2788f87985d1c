# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_picket_agent_global_optspecs
    string join \n c/config= h/help V/version
end

function __fish_picket_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_picket_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_picket_agent_using_subcommand
    set -l cmd (__fish_picket_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c picket-agent -n "__fish_picket_agent_needs_command" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_needs_command" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -s V -l version -d 'Print version'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "run" -d 'Run the agent (the default)'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "check-config" -d 'Check the configuration and its plugins, and print it as it is in force, defaults included'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "detect" -d 'Look at the node and print the configuration that fits it'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "enroll" -d 'Get this node\'s certificate from the aggregator with a one-time token'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "support-bundle" -d 'Gather what a bug report needs, without secrets, into one file that you can look through and send'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "plugin-run" -d 'Run one plugin for its author, without a configuration; `picket plugin run` is the way in'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "plugins" -d 'Show the plugins of the agent that runs on this node'
complete -c picket-agent -n "__fish_picket_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand run" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand check-config" -l output -r -f -a "text\t''
json\t''"
complete -c picket-agent -n "__fish_picket_agent_using_subcommand check-config" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand detect" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand detect" -l write -d 'Write it to conf.d/50-detected.toml beside the configuration instead, and what it needs to a drop-in of the unit'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand detect" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l token -d 'What `picket token create` printed' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l token-file -d 'A file that holds the token, in place of --token' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l node -d 'The name that this node takes, with a token for a batch of nodes; the machine\'s where not said' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l aggregator -d 'Where the aggregator is reached from here, HOST:PORT, instead of the token\'s addresses' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l owner -d 'Make the state folder this user\'s and group\'s, by number, for an agent that does not run as root' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l output -r -f -a "text\t''
json\t''"
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -l if-needed -d 'Do nothing where this node is enrolled and its certificate holds: for what runs at every start'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand enroll" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -l output-file -d 'Where to write it; picket-support-NODE-TIME.tar.gz in the current folder where not said' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -l output -r -f -a "text\t''
json\t''"
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -l list -d 'Show what would be in it, and write nothing'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -s y -l yes -d 'Write it without asking'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -l anonymous -d 'Put other names in the place of this node\'s, the aggregator\'s and of network addresses'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -l all-metrics -d 'All of /metrics, in place of Picket\'s own metrics and the number of the others\' series'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand support-bundle" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l with -d 'What the operator\'s section of the plugin would say, as TOML: `[settings]`, `[[grants]]`, `[limits]`' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l secret -d 'Where the value of a secret that the manifest names stands' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l collects -d 'Readings; 0: it is only loaded. None: until it is told to end' -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l interval -r
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l cache-dir -d 'Where compiled plugins are kept' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -l grant-needs -d 'Grant what the manifest asks for, where --with grants nothing else'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugin-run" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -l output -r -f -a "text\t''
json\t''"
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -f -a "rollback" -d 'Run the version of a plugin that ran before this one, until another file lies in the plugin folder'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -f -a "release" -d 'Try a quarantined plugin again'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and not __fish_seen_subcommand_from rollback release help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from rollback" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from release" -s c -l config -d 'The main configuration file; conf.d/*.toml beside it is read too' -r -F
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from help" -f -a "rollback" -d 'Run the version of a plugin that ran before this one, until another file lies in the plugin folder'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from help" -f -a "release" -d 'Try a quarantined plugin again'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand plugins; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "run" -d 'Run the agent (the default)'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "check-config" -d 'Check the configuration and its plugins, and print it as it is in force, defaults included'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "detect" -d 'Look at the node and print the configuration that fits it'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "enroll" -d 'Get this node\'s certificate from the aggregator with a one-time token'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "support-bundle" -d 'Gather what a bug report needs, without secrets, into one file that you can look through and send'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "plugin-run" -d 'Run one plugin for its author, without a configuration; `picket plugin run` is the way in'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "plugins" -d 'Show the plugins of the agent that runs on this node'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and not __fish_seen_subcommand_from run check-config detect enroll support-bundle plugin-run plugins help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and __fish_seen_subcommand_from plugins" -f -a "rollback" -d 'Run the version of a plugin that ran before this one, until another file lies in the plugin folder'
complete -c picket-agent -n "__fish_picket_agent_using_subcommand help; and __fish_seen_subcommand_from plugins" -f -a "release" -d 'Try a quarantined plugin again'
