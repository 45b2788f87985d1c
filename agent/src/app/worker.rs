//! Where the plugins run: the workers, as the configuration has them.

use std::path::PathBuf;

use picket_agent_host::WorkerOptions;

use crate::config::Config;

/// The user of the workers where the agent is root and the configuration names none.
const USER: &str = "picket-worker";
/// The same where there is no such user: a number that belongs to nobody.
const NOBODY: (u32, u32) = (65_533, 65_533);

/// As the configuration has it where it says nothing.
const MEMORY: u64 = 512 << 20;

/// # Errors
/// `worker.user` names nobody, for a person.
pub fn options(config: &Config) -> Result<WorkerOptions, String> {
    let worker = &config.worker;
    let user = match &worker.user {
        _ if !rustix::process::geteuid().is_root() => None,
        Some(name) => {
            Some(find(name).ok_or_else(|| format!("worker.user: there is no user {name:?} on this node"))?)
        }
        None => Some(find(USER).unwrap_or(NOBODY)),
    };
    if user.is_some_and(|(uid, gid)| uid == 0 || gid == 0) {
        return Err("worker.user: root is no user for a worker: it must have no rights".to_owned());
    }
    Ok(WorkerOptions {
        program: worker.program.clone().unwrap_or_else(|| super::beside("picket-worker")),
        user,
        memory: worker.memory.0,
        require: worker.require.clone(),
    })
}

/// Those of a plugin that its author tries out: the defaults, and a wall as high as this machine allows.
pub fn of_an_author() -> WorkerOptions {
    let root = rustix::process::geteuid().is_root();
    WorkerOptions {
        program: super::beside("picket-worker"),
        user: root.then(|| find(USER).unwrap_or(NOBODY)),
        memory: MEMORY,
        require: Vec::new(),
    }
}

/// User and group, by name or by number.
fn find(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string(PathBuf::from("/etc/passwd")).unwrap_or_default();
    let known = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (login, _) = (fields.next()?, fields.next()?);
        let ids = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (login == name || name.parse() == Ok(ids.0)).then_some(ids)
    });
    known.or_else(|| name.parse().ok().map(|number| (number, number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(find("root"), Some((0, 0)));
        assert_eq!(find("0"), Some((0, 0)));
        assert_eq!(find("61999"), Some((61_999, 61_999)));
        assert_eq!(find("no-such-user"), None);
    }
}
