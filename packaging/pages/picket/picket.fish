# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_picket_global_optspecs
    string join \n url= token= token-file= ca= o/output= h/help V/version
end

function __fish_picket_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_picket_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_picket_using_subcommand
    set -l cmd (__fish_picket_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c picket -n "__fish_picket_needs_command" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_needs_command" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_needs_command" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_needs_command" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_needs_command" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_needs_command" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_needs_command" -s V -l version -d 'Print version'
complete -c picket -n "__fish_picket_needs_command" -f -a "nodes" -d 'List the nodes'
complete -c picket -n "__fish_picket_needs_command" -f -a "node" -d 'One node'
complete -c picket -n "__fish_picket_needs_command" -f -a "top" -d 'A live table of the fleet'
complete -c picket -n "__fish_picket_needs_command" -f -a "events" -d 'List what happened, newest first'
complete -c picket -n "__fish_picket_needs_command" -f -a "logs" -d 'Find log lines, or follow them'
complete -c picket -n "__fish_picket_needs_command" -f -a "token" -d 'Tokens for nodes and for the API'
complete -c picket -n "__fish_picket_needs_command" -f -a "metrics" -d 'Print the fleet\'s metrics as the aggregator exports them'
complete -c picket -n "__fish_picket_needs_command" -f -a "action" -d 'Have nodes do something: plan, look, apply'
complete -c picket -n "__fish_picket_needs_command" -f -a "audit" -d 'Who did what: the aggregator\'s audit log'
complete -c picket -n "__fish_picket_needs_command" -f -a "plugin" -d 'Plugin files: what they need, who vouches for them; and their way onto the fleet'
complete -c picket -n "__fish_picket_needs_command" -f -a "status" -d 'How the aggregator is; fails where it does not answer or is not ready'
complete -c picket -n "__fish_picket_needs_command" -f -a "enroll" -d 'Enrol this machine as a node (runs `picket-agent enroll` with the same arguments)'
complete -c picket -n "__fish_picket_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand nodes" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand nodes" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand nodes" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand nodes" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand nodes" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand nodes" -l plugins -d 'With the plugins of each: version, digest, state'
complete -c picket -n "__fish_picket_using_subcommand nodes" -l outdated -d 'Only those whose agent is older than the aggregator'
complete -c picket -n "__fish_picket_using_subcommand nodes" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -f -a "show" -d 'All that is known of a node'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -f -a "revoke" -d 'Cut a node\'s stream and refuse all its certificates, for good'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -f -a "readmit" -d 'Let a revoked node in again (with a CA of your own; else make it a new enrolment token)'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -f -a "scenario" -d 'Read or change the settings of a node\'s controllable plugin'
complete -c picket -n "__fish_picket_using_subcommand node; and not __fish_seen_subcommand_from show revoke readmit scenario help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from readmit" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l set -d 'Change to this scenario' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l settings -d 'Single values, as a JSON object' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l plugin -d 'Which plugin, where a node has more than one that can be controlled' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from scenario" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "show" -d 'All that is known of a node'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Cut a node\'s stream and refuse all its certificates, for good'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "readmit" -d 'Let a revoked node in again (with a CA of your own; else make it a new enrolment token)'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "scenario" -d 'Read or change the settings of a node\'s controllable plugin'
complete -c picket -n "__fish_picket_using_subcommand node; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand top" -l interval -d 'Time between two looks' -r
complete -c picket -n "__fish_picket_using_subcommand top" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand top" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand top" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand top" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand top" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand top" -l once -d 'Print one table and end (also without a terminal)'
complete -c picket -n "__fish_picket_using_subcommand top" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand events" -l node -r
complete -c picket -n "__fish_picket_using_subcommand events" -l kind -r
complete -c picket -n "__fish_picket_using_subcommand events" -l severity -d 'This severity and worse: info, warning, critical' -r
complete -c picket -n "__fish_picket_using_subcommand events" -l limit -r
complete -c picket -n "__fish_picket_using_subcommand events" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand events" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand events" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand events" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand events" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand events" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand logs" -l since -d 'How far to look back' -r
complete -c picket -n "__fish_picket_using_subcommand logs" -l limit -d 'The last so many lines' -r
complete -c picket -n "__fish_picket_using_subcommand logs" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand logs" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand logs" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand logs" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand logs" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand logs" -s f -l follow -d 'Go on with lines as they come'
complete -c picket -n "__fish_picket_using_subcommand logs" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -f -a "create" -d 'Make a one-time token for a node (--node), one for a batch of new nodes (--nodes and --count), or a token for the API (--role and --name)'
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -f -a "ls" -d 'List the tokens; their secrets are not kept'
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -f -a "revoke" -d 'End a token by its id (an API token also by its name)'
complete -c picket -n "__fish_picket_using_subcommand token; and not __fish_seen_subcommand_from create ls revoke help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l node -d 'The node that may enrol with it, once' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l nodes -d 'The names that new nodes may enrol under with it, as gpu-*' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l count -d 'How many nodes may' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l role -d 'viewer reads, operator changes scenarios, admin makes tokens and revokes' -r -f -a "viewer\t''
operator\t''
admin\t''"
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l name -d 'What the API token is called in lists' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l ttl -d 'How long it is good, as 30m, 1h, 90d. A node\'s: 1h where not said; the API\'s: until it is revoked' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "create" -d 'Make a one-time token for a node (--node), one for a batch of new nodes (--nodes and --count), or a token for the API (--role and --name)'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List the tokens; their secrets are not kept'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'End a token by its id (an API token also by its name)'
complete -c picket -n "__fish_picket_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand metrics" -l match -d 'Only what matches, as name{label="value"}; may stand more than once' -r
complete -c picket -n "__fish_picket_using_subcommand metrics" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand metrics" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand metrics" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand metrics" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand metrics" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand metrics" -l self -d 'The aggregator\'s own metrics instead'
complete -c picket -n "__fish_picket_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "offers" -d 'What a node can be told to do'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "plan" -d 'Have a node say exactly what it would do. Nothing is changed'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "approve" -d 'Agree, as an admin, to a plan that is dangerous'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "apply" -d 'Have a node do what was planned'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "cancel" -d 'Have a node begin no further step of what it does'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "revert" -d 'Have a node undo what it did'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "list" -d 'List plans and what became of them, newest first'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "show" -d 'All that is known of one'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "pause" -d 'Stop all actions of the fleet that are not begun yet'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "resume" -d 'Let them go on'
complete -c picket -n "__fish_picket_using_subcommand action; and not __fish_seen_subcommand_from offers plan approve apply cancel revert list show pause resume help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from offers" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -l json -d 'Parameters as a JSON object, beside those' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from plan" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -l digest -d 'The digest that the plan shows' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from approve" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l digest -d 'The digest that the plan shows: what is applied is what was looked at' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l timeout -d 'No step begins later than this' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l wait -d 'Wait for its end, so long at most; fail where it does not succeed' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from apply" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from cancel" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from revert" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l state -d 'planned, sent, running, succeeded, failed, unknown, expired, cancelled, refused, reverted …' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l limit -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -l reason -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "offers" -d 'What a node can be told to do'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "plan" -d 'Have a node say exactly what it would do. Nothing is changed'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "approve" -d 'Agree, as an admin, to a plan that is dangerous'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "apply" -d 'Have a node do what was planned'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "cancel" -d 'Have a node begin no further step of what it does'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "revert" -d 'Have a node undo what it did'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "list" -d 'List plans and what became of them, newest first'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "show" -d 'All that is known of one'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "pause" -d 'Stop all actions of the fleet that are not begun yet'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "resume" -d 'Let them go on'
complete -c picket -n "__fish_picket_using_subcommand action; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -f -a "show" -d 'Print the entries'
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -f -a "verify" -d 'Check that no entry was changed, taken out or put in; prints the last hash'
complete -c picket -n "__fish_picket_using_subcommand audit; and not __fish_seen_subcommand_from show verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l node -d 'Of this node alone' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l subject -d 'About this alone: an action\'s id' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l limit -d 'The last so many that fit' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l file -d 'A copy of the log instead: audit.log of the aggregator\'s state folder' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l head -d 'A hash that an earlier check printed: it must stand in the chain' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the entries'
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Check that no entry was changed, taken out or put in; prints the last hash'
complete -c picket -n "__fish_picket_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "new" -d 'Begin a plugin: a folder with a manifest, a metric that works, its tests, and all that it builds with'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "build" -d 'Build the plugin of a folder into one file, manifest included'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "check" -d 'Say everything for which a node would refuse a plugin, and what to do about it'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "run" -d 'Run a plugin here, as a node would, and print what it reads'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "test" -d 'Build a plugin, run its own tests, then hold it to the contract in the node\'s own host'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "grants" -d 'Print the lines of the agent\'s configuration that grant what a plugin needs, each with its reason'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "inspect" -d 'Show what a plugin file is: manifest, needs, imports, digest, signatures (which are not verified by this)'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "keygen" -d 'Make a pair of keys: NAME.key, which signs and is a secret, and NAME.pub, for policies'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "pull" -d 'Get a plugin, and what vouches for it, from an OCI registry'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "push" -d 'Put a plugin, and what vouches for it, into an OCI registry; prints the reference with its digest'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "resume" -d 'Let the nodes that have a plugin go on with its rollout, those that failed among them'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "rollout" -d 'Bring a plugin onto the fleet, stage by stage'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "rollback" -d 'Have all nodes that a plugin was rolled out to run what they ran before'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "pause" -d 'Tell no more nodes of a plugin\'s rollout'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "status" -d 'How rollouts go; of one plugin, node by node'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "sign" -d 'Sign a plugin: writes FILE.sig, or adds a signature to it'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "verify" -d 'Hold a plugin, with what lies beside it, against a policy or a key; fails where it is not trusted'
complete -c picket -n "__fish_picket_using_subcommand plugin; and not __fish_seen_subcommand_from new build check run test grants inspect keygen pull push resume rollout rollback pause status sign verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -s l -l language -r -f -a "rust\t''
python\t''
javascript\t''
c\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -l into -d 'Where its folder is made' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l with -d 'What its section in the agent\'s configuration would say: [settings], [[grants]], [limits]' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l secret -d 'Where the value of a secret that its manifest names stands' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l agent -d 'The `picket-agent` program, where it is neither beside this one nor on PATH' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l with -d 'What its section in the agent\'s configuration would say: [settings], [[grants]], [limits]' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l secret -d 'Where the value of a secret that its manifest names stands' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l agent -d 'The `picket-agent` program, where it is neither beside this one nor on PATH' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -s n -l collects -d 'Read so many times; without it until Ctrl-C' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l interval -d 'Time between two readings' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -l grant-needs -d 'Grant what its manifest asks for (look at it first: it is printed without this)'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -l agent -d 'The `picket-agent` program, where it is neither beside this one nor on PATH' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -l as -d 'The plugin\'s name in the configuration; the manifest\'s id where not said' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from grants" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from keygen" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l into -d 'Where to write it' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l username -d 'Who you are to the registry' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l password-file -d 'A file with the password or token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l registry-ca -d 'The CA to trust, PEM. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -l plain-http -d 'Without TLS: for a registry on this machine'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pull" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l username -d 'Who you are to the registry' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l password-file -d 'A file with the password or token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l registry-ca -d 'The CA to trust, PEM. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -l plain-http -d 'Without TLS: for a registry on this machine'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from push" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l name -d 'The plugin\'s name in the nodes\' configuration' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l selector -d 'Nodes with these labels, as rack=r1 or gpu!=h100; `node` is a node\'s name. May stand more than once: all must hold. Without it, all nodes' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l stages -d 'How many nodes have it when each stage is full: numbers, percentages, all' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l soak -d 'How long all nodes of a stage must be well before the next one begins' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l timeout -d 'A node that does not run it after so long, or is not well for so long, has failed' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l max-failures -d 'With more failures than these it halts' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollout" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -l reason -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -l key -d 'The private key, PEM (PKCS#8, ed25519)' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from sign" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l policy -d 'A policy, as nodes have it' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l key -d 'A public key, PEM, that must have signed it' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l as -d 'The plugin\'s name in the node\'s configuration, where it is not the manifest\'s id' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "new" -d 'Begin a plugin: a folder with a manifest, a metric that works, its tests, and all that it builds with'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "build" -d 'Build the plugin of a folder into one file, manifest included'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "check" -d 'Say everything for which a node would refuse a plugin, and what to do about it'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "run" -d 'Run a plugin here, as a node would, and print what it reads'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "test" -d 'Build a plugin, run its own tests, then hold it to the contract in the node\'s own host'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "grants" -d 'Print the lines of the agent\'s configuration that grant what a plugin needs, each with its reason'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "inspect" -d 'Show what a plugin file is: manifest, needs, imports, digest, signatures (which are not verified by this)'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "keygen" -d 'Make a pair of keys: NAME.key, which signs and is a secret, and NAME.pub, for policies'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "pull" -d 'Get a plugin, and what vouches for it, from an OCI registry'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "push" -d 'Put a plugin, and what vouches for it, into an OCI registry; prints the reference with its digest'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "resume" -d 'Let the nodes that have a plugin go on with its rollout, those that failed among them'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "rollout" -d 'Bring a plugin onto the fleet, stage by stage'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "rollback" -d 'Have all nodes that a plugin was rolled out to run what they ran before'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "pause" -d 'Tell no more nodes of a plugin\'s rollout'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "status" -d 'How rollouts go; of one plugin, node by node'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "sign" -d 'Sign a plugin: writes FILE.sig, or adds a signature to it'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Hold a plugin, with what lies beside it, against a policy or a key; fails where it is not trusted'
complete -c picket -n "__fish_picket_using_subcommand plugin; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand status" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand status" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand status" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand status" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand status" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand status" -s h -l help -d 'Print help'
complete -c picket -n "__fish_picket_using_subcommand enroll" -l url -d 'The aggregator\'s API, as https://host:9471' -r
complete -c picket -n "__fish_picket_using_subcommand enroll" -l token -d 'An API token' -r
complete -c picket -n "__fish_picket_using_subcommand enroll" -l token-file -d 'A file with an API token' -r -F
complete -c picket -n "__fish_picket_using_subcommand enroll" -l ca -d 'The CA to trust, PEM: the aggregator\'s ca.pem. Without one, the system\'s' -r -F
complete -c picket -n "__fish_picket_using_subcommand enroll" -s o -l output -d 'How to print: a table for people, JSON for programs' -r -f -a "table\t''
json\t''"
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "nodes" -d 'List the nodes'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "node" -d 'One node'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "top" -d 'A live table of the fleet'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "events" -d 'List what happened, newest first'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "logs" -d 'Find log lines, or follow them'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "token" -d 'Tokens for nodes and for the API'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "metrics" -d 'Print the fleet\'s metrics as the aggregator exports them'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "action" -d 'Have nodes do something: plan, look, apply'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "audit" -d 'Who did what: the aggregator\'s audit log'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "plugin" -d 'Plugin files: what they need, who vouches for them; and their way onto the fleet'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "status" -d 'How the aggregator is; fails where it does not answer or is not ready'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "enroll" -d 'Enrol this machine as a node (runs `picket-agent enroll` with the same arguments)'
complete -c picket -n "__fish_picket_using_subcommand help; and not __fish_seen_subcommand_from nodes node top events logs token metrics action audit plugin status enroll help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "show" -d 'All that is known of a node'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "revoke" -d 'Cut a node\'s stream and refuse all its certificates, for good'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "readmit" -d 'Let a revoked node in again (with a CA of your own; else make it a new enrolment token)'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from node" -f -a "scenario" -d 'Read or change the settings of a node\'s controllable plugin'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "create" -d 'Make a one-time token for a node (--node), one for a batch of new nodes (--nodes and --count), or a token for the API (--role and --name)'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "ls" -d 'List the tokens; their secrets are not kept'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "revoke" -d 'End a token by its id (an API token also by its name)'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "offers" -d 'What a node can be told to do'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "plan" -d 'Have a node say exactly what it would do. Nothing is changed'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "approve" -d 'Agree, as an admin, to a plan that is dangerous'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "apply" -d 'Have a node do what was planned'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "cancel" -d 'Have a node begin no further step of what it does'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "revert" -d 'Have a node undo what it did'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "list" -d 'List plans and what became of them, newest first'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "show" -d 'All that is known of one'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "pause" -d 'Stop all actions of the fleet that are not begun yet'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from action" -f -a "resume" -d 'Let them go on'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "show" -d 'Print the entries'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "verify" -d 'Check that no entry was changed, taken out or put in; prints the last hash'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "new" -d 'Begin a plugin: a folder with a manifest, a metric that works, its tests, and all that it builds with'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "build" -d 'Build the plugin of a folder into one file, manifest included'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "check" -d 'Say everything for which a node would refuse a plugin, and what to do about it'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "run" -d 'Run a plugin here, as a node would, and print what it reads'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "test" -d 'Build a plugin, run its own tests, then hold it to the contract in the node\'s own host'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "grants" -d 'Print the lines of the agent\'s configuration that grant what a plugin needs, each with its reason'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "inspect" -d 'Show what a plugin file is: manifest, needs, imports, digest, signatures (which are not verified by this)'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "keygen" -d 'Make a pair of keys: NAME.key, which signs and is a secret, and NAME.pub, for policies'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "pull" -d 'Get a plugin, and what vouches for it, from an OCI registry'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "push" -d 'Put a plugin, and what vouches for it, into an OCI registry; prints the reference with its digest'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "resume" -d 'Let the nodes that have a plugin go on with its rollout, those that failed among them'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "rollout" -d 'Bring a plugin onto the fleet, stage by stage'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "rollback" -d 'Have all nodes that a plugin was rolled out to run what they ran before'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "pause" -d 'Tell no more nodes of a plugin\'s rollout'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "status" -d 'How rollouts go; of one plugin, node by node'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "sign" -d 'Sign a plugin: writes FILE.sig, or adds a signature to it'
complete -c picket -n "__fish_picket_using_subcommand help; and __fish_seen_subcommand_from plugin" -f -a "verify" -d 'Hold a plugin, with what lies beside it, against a policy or a key; fails where it is not trusted'
