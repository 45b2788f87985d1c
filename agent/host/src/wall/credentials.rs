//! Who the process is: a user that owns nothing, without capabilities, with no way to gain any.

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{Part, Wall};

/// While there is one thread: these are a thread's own.
pub(super) fn drop_all(user: Option<(u32, u32)>, wall: &mut Wall) {
    // The bounding set first: it takes a capability to empty it.
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    wall.set(Part::User, become_user(user));
    let emptied = clear_ambient_capability_set().and_then(|()| {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
    });
    let barred = set_no_new_privs(true);
    wall.set(
        Part::Capabilities,
        match (emptied, barred) {
            (Ok(()), Ok(())) => Ok("none, and no way to new ones".to_owned()),
            (Err(e), _) => Err(format!("they cannot be given up: {e}")),
            (_, Err(e)) => Err(format!("no_new_privs cannot be set: {e}")),
        },
    );
}

fn become_user(user: Option<(u32, u32)>) -> Result<String, String> {
    let Some((uid, gid)) = user else {
        return Err(format!("the agent is not root, so the worker is user {} too", geteuid().as_raw()));
    };
    if uid == 0 || uid == u32::MAX || gid == u32::MAX {
        return Err(format!("user {uid} is none for it"));
    }
    let (uid_, gid_) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[]).map_err(|e| format!("the groups cannot be left: {e}"))?;
    set_thread_res_gid(gid_, gid_, gid_).map_err(|e| format!("group {gid} cannot be taken: {e}"))?;
    set_thread_res_uid(uid_, uid_, uid_).map_err(|e| format!("user {uid} cannot be taken: {e}"))?;
    Ok(format!("user {uid}, group {gid}"))
}
