//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::action::ActionCommand;
use crate::audit::AuditCommand;
use crate::plugin::PluginCommand;

#[derive(Debug, Parser)]
#[command(name = "picket", version, about = "Looks after a fleet of Picket nodes through their aggregator.")]
pub struct Arguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// How to print: a table for people, JSON for programs.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the aggregator is. What is not given is taken from ~/.config/picket/cli.toml.
#[derive(Debug, Default, Args)]
pub struct ConnectionArguments {
    /// The aggregator's API, as https://host:9471.
    #[arg(long, global = true, env = "PICKET_URL")]
    pub url: Option<String>,
    /// An API token.
    #[arg(long, global = true, env = "PICKET_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file with an API token.
    #[arg(long, global = true, env = "PICKET_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// The CA to trust, PEM: the aggregator's ca.pem. Without one, the system's.
    #[arg(long, global = true, env = "PICKET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[value(alias = "text")]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the nodes.
    Nodes {
        /// With the plugins of each: version, digest, state.
        #[arg(long)]
        plugins: bool,
        /// Only those whose agent is older than the aggregator.
        #[arg(long)]
        outdated: bool,
    },
    /// One node.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// A live table of the fleet.
    Top {
        /// Print one table and end (also without a terminal).
        #[arg(long)]
        once: bool,
        /// Time between two looks.
        #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
        interval: Duration,
    },
    /// List what happened, newest first.
    Events(EventsArguments),
    /// Find log lines, or follow them.
    Logs(LogsArguments),
    /// Tokens for nodes and for the API.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print the fleet's metrics as the aggregator exports them.
    Metrics {
        /// The aggregator's own metrics instead.
        #[arg(long = "self")]
        own: bool,
        /// Only what matches, as name{label="value"}; may stand more than once.
        #[arg(long = "match", value_name = "SELECTOR", conflicts_with = "own")]
        selectors: Vec<String>,
    },
    /// Have nodes do something: plan, look, apply.
    Action {
        #[command(subcommand)]
        command: ActionCommand,
    },
    /// Who did what: the aggregator's audit log.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Plugin files: what they need, who vouches for them; and their way onto the fleet.
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// How the aggregator is; fails where it does not answer or is not ready.
    Status,
    /// Enrol this machine as a node (runs `picket-agent enroll` with the same arguments).
    #[command(disable_help_flag = true)]
    Enroll {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All that is known of a node.
    Show { node: String },
    /// Cut a node's stream and refuse all its certificates, for good.
    Revoke { node: String },
    /// Let a revoked node in again (with a CA of your own; else make it a new enrolment token).
    Readmit { node: String },
    /// Read or change the settings of a node's controllable plugin.
    Scenario(ScenarioArguments),
}

#[derive(Debug, Args)]
pub struct ScenarioArguments {
    pub node: String,
    /// Change to this scenario.
    #[arg(long)]
    pub set: Option<String>,
    /// Single values, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub settings: Option<serde_json::Value>,
    /// Which plugin, where a node has more than one that can be controlled.
    #[arg(long)]
    pub plugin: Option<String>,
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    #[arg(long)]
    pub node: Option<String>,
    #[arg(long)]
    pub kind: Option<String>,
    /// This severity and worse: info, warning, critical.
    #[arg(long)]
    pub severity: Option<String>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// LogQL, as '{container="x"} |= "ERROR"' or 'sum by (node) (rate({container="x"}[5m]))'.
    pub query: String,
    /// How far to look back.
    #[arg(long, default_value = "1h")]
    pub since: humantime::Duration,
    /// The last so many lines.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub limit: u32,
    /// Go on with lines as they come.
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a one-time token for a node (--node), one for a batch of new nodes (--nodes and --count), or a token for
    /// the API (--role and --name).
    Create {
        /// The node that may enrol with it, once.
        #[arg(long, conflicts_with_all = ["nodes", "role", "name"], required_unless_present_any = ["nodes", "role"])]
        node: Option<String>,
        /// The names that new nodes may enrol under with it, as gpu-*.
        #[arg(long, value_name = "PATTERN", requires = "count", conflicts_with_all = ["role", "name"])]
        nodes: Option<String>,
        /// How many nodes may.
        #[arg(long, requires = "nodes", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: Option<u32>,
        /// viewer reads, operator changes scenarios, admin makes tokens and revokes.
        #[arg(long, requires = "name", value_parser = ["viewer", "operator", "admin"])]
        role: Option<String>,
        /// What the API token is called in lists.
        #[arg(long, requires = "role")]
        name: Option<String>,
        /// How long it is good, as 30m, 1h, 90d. A node's: 1h where not said; the API's: until it is revoked.
        #[arg(long)]
        ttl: Option<humantime::Duration>,
    },
    /// List the tokens; their secrets are not kept.
    Ls,
    /// End a token by its id (an API token also by its name).
    Revoke { id: String },
}

/// What follows `picket enroll`: the agent's own arguments, among them a `--token` that is not this program's.
pub fn enroll_arguments(mut line: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    (line.nth(1)? == "enroll").then(|| line.collect())
}

fn json_object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err(r#"a JSON object is wanted, as {"gpu_temperature": 90}"#.into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_understood() {
        for (line, good) in [
            ("nodes", true),
            ("nodes --output json", true),
            ("--output json nodes", true),
            ("nodes --output yaml", false),
            ("node show n1", true),
            ("node show", false),
            ("node revoke n1 --url https://x:1 --token t --ca /ca", true),
            ("node scenario n1", true),
            ("node scenario n1 --set high_load --settings {\"a\":1}", true),
            ("node scenario n1 --settings [1]", false),
            ("top --once --interval 500ms", true),
            ("top --interval fast", false),
            ("token create --node n1 --ttl 1h", true),
            ("token create --role viewer --name grafana", true),
            ("token create --role viewer", false),
            ("token create --role king --name x", false),
            ("token create --node n1 --role viewer --name x", false),
            ("token create", false),
            ("token create --node n1 --ttl soon", false),
            ("token ls", true),
            ("token revoke abc", true),
            ("metrics --self", true),
            ("metrics --match up", true),
            ("metrics --self --match up", false),
            ("status", true),
            ("enroll --token picket-enrol-v1.x --aggregator h:1", true),
            ("events --limit 0", false),
            ("events --node n --severity warning", true),
            ("logs {a=\"b\"} --since 5m --limit 10 --follow --output text", true),
            ("logs", false),
            ("logs {a=\"b\"} --limit 6000", false),
            ("logs {a=\"b\"} --since ever", false),
            ("action plan n1 action-containers restart container=llama grace_seconds=3", true),
            ("action plan n1 action-containers", false),
            ("action plan n1 p a container", false),
            ("action apply n1 id", false),
            ("action apply n1 id --digest d --wait", true),
            ("action apply n1 id --digest d --wait 30s", true),
            ("action cancel n1 id", true),
            ("action cancel id", false),
            ("action list n1 --state running", true),
            ("action show id", true),
            ("audit verify --file /x --head h", true),
            ("audit show --subject id", true),
            ("plugin new a --language rust", true),
            ("plugin new a", false),
            ("plugin new a --language cobol", false),
            ("plugin build", true),
            ("plugin check a.wasm --with t.toml --secret k=/f", true),
            ("plugin run --grant-needs -n 2 --interval 1s", true),
            ("plugin test f --agent /a", true),
            ("plugin grants a.wasm", true),
            ("plugin inspect a.wasm --output json", true),
            ("plugin sign a.wasm --key k.key", true),
            ("plugin sign a.wasm", false),
            ("plugin push a.wasm h/r:1 --plain-http", true),
            ("plugin push a.wasm", false),
            ("plugin pull h/r:1 --into /x --username u --password-file f", true),
            ("plugin pull h/r:1 --username u", false),
            (
                "plugin rollout h/r:1 --name count --selector rack=r1 --selector gpu!=h100 --stages 1,10%,all --soak 5m",
                true,
            ),
            ("plugin rollout h/r:1", false),
            ("plugin rollout h/r:1 --name count --soak ever", false),
            ("plugin status", true),
            ("plugin status count --output json", true),
            ("plugin rollback", false),
            ("plugin rollback count", true),
            ("plugin pause count --reason lunch", true),
            ("plugin resume count", true),
            ("nodes --plugins", true),
            ("plugin verify a.wasm", false),
            ("plugin verify a.wasm --key k.pub --as other", true),
            ("plugin verify a.wasm --key k.pub --policy p.toml", false),
            ("--token a --token-file b status", false),
            ("", false),
        ] {
            let parsed = Arguments::try_parse_from(std::iter::once("picket").chain(line.split_whitespace()));
            assert_eq!(parsed.is_ok(), good, "{line}: {parsed:?}");
        }
    }

    #[test]
    fn enroll_hands_everything_on() {
        let line = |text: &str| enroll_arguments(text.split(' ').map(OsString::from));
        let arguments = line("picket enroll --token t --config /x").unwrap();
        assert_eq!(arguments, ["--token", "t", "--config", "/x"]);
        assert_eq!(line("picket enroll"), Some(Vec::new()));
        assert_eq!(line("picket nodes enroll"), None);
        assert_eq!(line("picket"), None);
    }
}
