//! Runs plugins for the agent, with no rights of its own. See the library's module `worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    picket_agent_host::worker_main()
}
