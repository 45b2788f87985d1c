//! The thread that waits for XIDs.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_agent_nvml::{Tell, XidText};

use crate::code::Code;
use crate::ffi::{EventSet, Session};

/// One wait; the library ends it early when something comes.
const WAIT: Duration = Duration::from_secs(10);
/// Before listening is tried anew.
const AGAIN: Duration = Duration::from_secs(10);

/// Never returns but by an error of `tell`: the agent is gone.
pub fn listen(
    session: Session<'_>,
    mut tell: impl FnMut(&Tell) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut said = false;
    loop {
        let why = match register(session) {
            Ok((set, uuids)) => {
                if said {
                    tell(&Tell::NoEvents(String::new()))?;
                    said = false;
                }
                wait(&set, &uuids, &mut tell)?
            }
            Err(why) => why,
        };
        if !said {
            tell(&Tell::NoEvents(why))?;
            said = true;
        }
        std::thread::sleep(AGAIN);
    }
}

fn register(session: Session<'_>) -> Result<(EventSet<'_>, BTreeMap<usize, String>), String> {
    let failed = |call: &str, code: Code| format!("{call}: {}", code.word());
    let count = session.device_count().map_err(|code| failed("nvmlDeviceGetCount", code))?;
    let set = session.event_set().map_err(|code| failed("nvmlEventSetCreate", code))?;
    let mut uuids = BTreeMap::new();
    let mut last = "there is no device".to_owned();
    for number in 0..count.min(128) {
        let registered = session.device(number).and_then(|device| {
            set.register(&device)?;
            Ok((device.key(), device.uuid()?))
        });
        match registered {
            Ok((key, uuid)) => {
                uuids.insert(key, uuid);
            }
            Err(code) => last = failed(&format!("nvmlDeviceRegisterEvents of GPU {number}"), code),
        }
    }
    if uuids.is_empty() { Err(last) } else { Ok((set, uuids)) }
}

/// Until the library fails; says how.
fn wait(
    set: &EventSet<'_>,
    uuids: &BTreeMap<usize, String>,
    tell: &mut impl FnMut(&Tell) -> std::io::Result<()>,
) -> std::io::Result<String> {
    loop {
        match set.wait(WAIT) {
            Ok(event) => {
                let uuid = uuids.get(&event.device.key()).cloned();
                tell(&Tell::Xid(XidText {
                    uuid: uuid.or_else(|| event.device.uuid().ok()).unwrap_or_default(),
                    xid: event.xid,
                    gpu_instance_id: event.gpu_instance_id,
                    compute_instance_id: event.compute_instance_id,
                }))?;
            }
            Err(Code::TIMEOUT) => {}
            Err(code) => return Ok(format!("nvmlEventSetWait: {}", code.word())),
        }
    }
}
