//! Lines of log files, of the journal and of containers, from cursors that outlive the agent.

mod scope;

pub use scope::Scope;
