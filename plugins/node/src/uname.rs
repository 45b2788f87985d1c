//! `node_uname_info` of uname(2).

use picket_sdk::{Describe, Failure, GaugeFamily, system};

pub struct Uname(GaugeFamily<6>);

impl Uname {
    pub fn new(d: &mut Describe) -> Self {
        let help = "Labeled system information as provided by the uname system call.";
        let labels = ["sysname", "release", "version", "machine", "nodename", "domainname"];
        Self(d.gauge("node_uname_info", help).labels(&labels))
    }

    pub fn collect(&mut self) -> Result<(), Failure> {
        let u = system::uname();
        self.0.with(&[&u.sysname, &u.release, &u.version, &u.machine, &u.nodename, &u.domainname]).set(1.0);
        Ok(())
    }
}
