//! Who has a GPU: by process, container and Slurm job; and who holds one without using it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

mod common;

use common::{World, node, uuid};
use picket_sdk::serde_json::json;
use picket_sdk::testing::Sample;
use picket_sdk::{Event, Severity};

const CONTAINER: &str = "3f1d7c0e9b2a4c5d8e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

fn process(world: &mut World, pid: u32, uid: u32, cgroup: &str) {
    world.host.file(&format!("/proc/{pid}/cgroup"), format!("0::{cgroup}\n"));
    let status =
        format!("Name:\tpython\nUmask:\t0022\nPid:\t{pid}\nPPid:\t1\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
    world.host.file(&format!("/proc/{pid}/status"), status);
}

fn world() -> World {
    let mut world = World::new(node(4));
    world.host.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
    let container = format!("/system.slice/docker-{CONTAINER}.scope");
    process(&mut world, 10, 1000, "/system.slice/slurmstepd.scope/job_42/step_0/user/task_0");
    process(&mut world, 11, 1001, &container);
    // Slurm 26.05: the number of the job is in the title of the step's own process.
    let sluid = "/system.slice/slurmstepd.scope/s5K1KKYAYG5D00";
    process(&mut world, 12, 1000, &format!("{sluid}/step_0/user/task_0"));
    world.host.file(&format!("/sys/fs/cgroup{sluid}/step_0/slurm/cgroup.procs"), "900\n");
    world.host.file("/proc/900/cmdline", "slurmstepd: [77.0]\0");
    // And where that cannot be read, of an ancestor.
    process(&mut world, 13, 1000, "/system.slice/slurmstepd.scope/s5K1KKYAYG5D01/step_0/user/task_0");
    world.host.file("/proc/13/status", "Name:\tpython\nPPid:\t901\nUid:\t1000\t1000\t1000\t1000\n");
    world.host.file("/proc/901/status", "Name:\tbash\nPPid:\t902\nUid:\t1000\t1000\t1000\t1000\n");
    world.host.file("/proc/902/status", "Name:\tslurmstepd\nPPid:\t1\nUid:\t0\t0\t0\t0\n");
    world.host.file("/proc/902/cmdline", "slurmstepd: [78.batch]\0");
    let on = |pid: u32| json!({"pid": pid, "kind": "compute", "used_memory_bytes": 1000 + pid});
    world.document["devices"][0]["processes"] = json!([on(10), on(10), on(11)]);
    world.document["devices"][1]["processes"] = json!([on(12)]);
    world.document["devices"][2]["processes"] = json!([on(13), {"pid": 99, "kind": "graphics"}]);
    world
}

/// The labels of a family's series: GPU, job, user, container, in order.
fn owners(world: &World, name: &str) -> Vec<[String; 4]> {
    let samples = world.host.samples();
    let text = |s: &Sample, label: &str| s.label(label).unwrap_or_default().to_owned();
    let of = samples.iter().filter(|s| s.name == name);
    let mut found: Vec<[String; 4]> =
        of.map(|s| ["gpu", "slurm_job_id", "user", "container"].map(|l| text(s, l))).collect();
    found.sort_unstable();
    found
}

#[test]
fn gpus_belong_to_jobs_users_and_containers() {
    let mut world = world();
    world.collect();
    assert_eq!(world.host.failures(), []);
    let want = [
        ["0", "", "1001", CONTAINER],
        ["0", "42", "ada", ""],
        ["1", "77", "ada", ""],
        // Gone while it was looked at.
        ["2", "", "", ""],
        ["2", "78", "ada", ""],
    ]
    .map(|row| row.map(str::to_owned));
    assert_eq!(owners(&world, "picket_gpu_job_info"), want);
    let labels = [("UUID", &*uuid(0)), ("gpu", "0"), ("pid", "10"), ("slurm_job_id", "42"), ("user", "ada")];
    assert_eq!(world.host.value("picket_gpu_process_memory_bytes", &labels), Some(1010.0));
    // Its memory is not known, so there is none.
    assert_eq!(owners(&world, "picket_gpu_process_memory_bytes").len(), 4);
    world.document["devices"][0]["processes"] = json!([]);
    world.tick(5);
    assert_eq!(owners(&world, "picket_gpu_job_info").len(), 3);
    world.configure(json!({"hostname": "gpu-01", "processes": false}));
    world.tick(5);
    assert_eq!(owners(&world, "picket_gpu_job_info").len(), 0);
}

#[test]
fn a_number_that_is_used_again_is_looked_at_anew() {
    let mut world = world();
    world.collect();
    process(&mut world, 10, 0, "/user.slice/user-0.slice/session-1.scope");
    world.tick(30);
    assert!(owners(&world, "picket_gpu_job_info").iter().any(|o| o[1] == "42"));
    world.tick(31);
    assert!(!owners(&world, "picket_gpu_job_info").iter().any(|o| o[1] == "42"));
    assert!(owners(&world, "picket_gpu_job_info").iter().any(|o| o[2] == "root"));
}

fn idle(world: &mut World, index: usize, busy: bool) {
    let device = &mut world.document["devices"][index];
    device["utilization_gpu_percent"] = json!(if busy { 90 } else { 0 });
    device["profiling"]["sm_ratio"] = json!(if busy { 0.9 } else { 0.0 });
}

fn held_seconds(world: &World, gpu: &str) -> Vec<f64> {
    let samples = world.host.samples();
    let of = |s: &&Sample| s.name == "picket_gpu_held_idle_seconds" && s.label("gpu") == Some(gpu);
    samples.iter().filter(of).map(|s| s.value).collect()
}

#[test]
fn a_gpu_that_is_held_and_not_used_is_told_once_until_it_is_used() {
    let mut world = world();
    world.configure(json!({"hostname": "gpu-01", "idle": {"after_minutes": 10, "threshold_percent": 2.0}}));
    world.collect();
    world.events();
    assert_eq!(held_seconds(&world, "1"), [0.0]);
    // Nobody is on it, so nobody holds it.
    assert_eq!(held_seconds(&world, "3"), [0.0; 0]);
    idle(&mut world, 1, false);
    for minute in 1..10u32 {
        world.tick(60);
        assert_eq!((world.events().len(), held_seconds(&world, "1")), (0, vec![f64::from(minute) * 60.0]));
    }
    world.tick(60);
    let events = world.host.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    let told = events[0].view();
    assert_eq!((told.kind, told.severity), ("gpu.held-idle", Severity::Warning));
    assert_eq!((told.attribute("slurm_job_id"), told.attribute("user")), (Some("77"), Some("ada")));
    assert!(told.message.contains("job 77, user ada"), "{}", told.message);
    // A restart changes nothing.
    let mut world = world.restarted();
    world.tick(60);
    assert_eq!(world.events(), [""; 0]);
    // A burst between two samples is a use: the hardware's own average has it.
    world.document["devices"][1]["profiling"]["sm_ratio"] = json!(0.05);
    world.tick(60);
    assert_eq!(world.events(), [format!("end gpu.held-idle {}/held-idle", uuid(1))]);
    assert_eq!(held_seconds(&world, "1"), [0.0]);
}

#[test]
fn the_wait_begins_anew_with_other_owners_and_ends_with_none() {
    let mut world = world();
    world.configure(json!({"hostname": "gpu-01", "idle": {"after_minutes": 10}}));
    idle(&mut world, 1, false);
    world.collect();
    world.tick(500);
    world.document["devices"][1]["processes"] = json!([{"pid": 10, "kind": "compute"}]);
    world.tick(100);
    assert_eq!(held_seconds(&world, "1"), [0.0]);
    world.tick(601);
    assert_eq!(world.host.take_events().len(), 1);
    world.document["devices"][1]["processes"] = json!([]);
    world.tick(5);
    let events = world.host.take_events();
    assert_eq!(
        events.iter().map(Event::view).map(|e| (e.kind, e.clear)).collect::<Vec<_>>(),
        [("gpu.held-idle", true)]
    );
    assert_eq!(held_seconds(&world, "1"), [0.0; 0]);
}

#[test]
fn of_a_device_that_says_nothing_of_its_use_nothing_is_said() {
    let mut world = world();
    for field in ["utilization_gpu_percent", "profiling"] {
        world.document["devices"][1].as_object_mut().unwrap().remove(field);
    }
    world.collect();
    world.tick(100_000);
    assert_eq!(held_seconds(&world, "1"), [0.0; 0]);
    assert!(!world.events().iter().any(|e| e.contains("held-idle")));
}
