//! What a line of /proc/PID/cgroup says of who runs the process: a Slurm job, a container, both or neither.
//!
//! Slurm's directories: `/slurm/uid_1000/job_42/step_0` (cgroup v1), `/system.slice/slurmstepd.scope/job_42/step_0/user/task_0`
//! (v2; with several slurmd on a host `NODE_slurmstepd.scope`), and from Slurm 26.05 on
//! `/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0/user/task_0`, where the job's number is not in the path.
//! Containers have their id of 64 hexadecimal digits in a directory: `docker-ID.scope`, `cri-containerd-ID.scope`,
//! `crio-ID.scope`, `libpod-ID.scope`, or bare.

/// Of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub slurm: Option<Slurm>,
    /// The whole id.
    pub container: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slurm {
    Job(u64),
    /// The job's directory, below the mount point of cgroup v2; its name is the job's in Slurm's own numbering.
    Directory(String),
}

/// Of the whole file.
pub fn parse(text: &str) -> Place {
    let mut place = Place::default();
    for line in text.lines() {
        let Some((_, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
            continue;
        };
        // A number is better than a directory, whichever hierarchy has it.
        match (&place.slurm, slurm(path)) {
            (None | Some(Slurm::Directory(_)), Some(Slurm::Job(id))) => place.slurm = Some(Slurm::Job(id)),
            (None, found) => place.slurm = found,
            _ => {}
        }
        if place.container.is_none() {
            place.container = path.rsplit('/').find_map(container).map(str::to_owned);
        }
    }
    place
}

fn slurm(path: &str) -> Option<Slurm> {
    let mut walked = String::new();
    let mut inside = false;
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        walked.push('/');
        walked.push_str(segment);
        if !inside {
            inside = segment == "slurm"
                || segment.starts_with("slurm_")
                || segment == "slurmstepd.scope"
                || segment.ends_with("_slurmstepd.scope");
            continue;
        }
        if let Some(id) = segment.strip_prefix("job_") {
            return id.parse().ok().map(Slurm::Job);
        }
        if is_sluid(segment) {
            return Some(Slurm::Directory(walked));
        }
    }
    None
}

/// `s` and 13 characters of a base-32 number.
fn is_sluid(segment: &str) -> bool {
    segment.len() == 14
        && segment
            .strip_prefix('s')
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()))
}

fn container(segment: &str) -> Option<&str> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let (kind, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    let hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    // The process beside a container that holds its terminal.
    (hex && !kind.ends_with("conmon")).then_some(id)
}

/// `slurmstepd: [42.batch]`, the title of the process that runs a step.
pub fn job_of_step_daemon(command_line: &str) -> Option<u64> {
    let (_, rest) = command_line.strip_prefix("slurmstepd:")?.split_once('[')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok().filter(|_| matches!(rest.as_bytes().get(digits), Some(b'.' | b']')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "3f1d7c0e9b2a4c5d8e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

    fn check(text: &str, slurm: Option<Slurm>, container: Option<&str>) {
        assert_eq!(parse(text), Place { slurm, container: container.map(str::to_owned) }, "{text:?}");
    }

    #[test]
    fn jobs() {
        let job = |id| Some(Slurm::Job(id));
        check("0::/system.slice/slurmstepd.scope/job_1870/step_0/user/task_0\n", job(1870), None);
        check("0::/system.slice/cn1_slurmstepd.scope/job_7/step_batch/user/task_special\n", job(7), None);
        check("12:cpuset:/\n7:memory:/slurm/uid_1000/job_42/step_0\n3:cpu,cpuacct:/slurm\n", job(42), None);
        check("7:memory:/slurm_cn1/uid_1000/job_43/step_extern/task_0\n", job(43), None);
        let directory = "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00";
        check(
            &format!("0::{directory}/step_0/user/task_0\n"),
            Some(Slurm::Directory(directory.to_owned())),
            None,
        );
        // A number in another hierarchy is better.
        check(&format!("0::{directory}/step_0\n7:memory:/slurm/uid_1/job_9/step_0\n"), job(9), None);
        for none in [
            "0::/user.slice/user-1000.slice/session-2.scope\n",
            "0::/system.slice/slurmstepd.scope/system\n",
            "0::/home/job_42/x\n",
            "0::/system.slice/slurmstepd.scope/job_x/step_0\n",
            "garbage\n",
            "",
        ] {
            check(none, None, None);
        }
    }

    #[test]
    fn containers() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/x.slice/crio-{ID}.scope/container"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            format!("/kubepods/besteffort/pod9f/{ID}"),
            format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
        ] {
            check(&format!("0::{path}\n"), None, Some(ID));
        }
        check(&format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"), None, None);
        check("0::/docker/short\n", None, None);
        // A container inside a job.
        let both = format!("0::/system.slice/slurmstepd.scope/job_5/step_0/user/task_0/docker-{ID}.scope\n");
        check(&both, Some(Slurm::Job(5)), Some(ID));
    }

    #[test]
    fn step_daemons() {
        for (text, want) in [
            ("slurmstepd: [42.batch]", Some(42)),
            ("slurmstepd: [42.0]\0", Some(42)),
            ("slurmstepd: [42]", Some(42)),
            ("slurmstepd: [42+1.0]", None),
            ("slurmstepd infinity", None),
            ("/usr/bin/python [42.0]", None),
            ("slurmstepd: [", None),
            ("", None),
        ] {
            assert_eq!(job_of_step_daemon(text), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-z:/_.\\-\nsS]{0,200}") {
            let _ = parse(&text);
            let _ = job_of_step_daemon(&text);
            let _ = job_of_step_daemon(&format!("slurmstepd: {text}"));
        }
    }
}
