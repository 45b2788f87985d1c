//! `node_memory_*` of /proc/meminfo.

use picket_sdk::{Collect, Describe, Failure, GaugeFamily};

use crate::root::Root;
use crate::text::{Malformed, lines, unsigned, words};

/// The fields that node_exporter knows, with its names for them, ordered by field. Others are left out, as there.
const FIELDS: &[(&str, &str)] = &[
    ("Active", "Active_bytes"),
    ("Active(anon)", "Active_anon_bytes"),
    ("Active(file)", "Active_file_bytes"),
    ("AnonHugePages", "AnonHugePages_bytes"),
    ("AnonPages", "AnonPages_bytes"),
    ("Bounce", "Bounce_bytes"),
    ("Buffers", "Buffers_bytes"),
    ("Cached", "Cached_bytes"),
    ("CmaFree", "CmaFree_bytes"),
    ("CmaTotal", "CmaTotal_bytes"),
    ("CommitLimit", "CommitLimit_bytes"),
    ("Committed_AS", "Committed_AS_bytes"),
    ("DirectMap1G", "DirectMap1G_bytes"),
    ("DirectMap2M", "DirectMap2M_bytes"),
    ("DirectMap4k", "DirectMap4k_bytes"),
    ("Dirty", "Dirty_bytes"),
    ("HardwareCorrupted", "HardwareCorrupted_bytes"),
    ("HugePages_Free", "HugePages_Free"),
    ("HugePages_Rsvd", "HugePages_Rsvd"),
    ("HugePages_Surp", "HugePages_Surp"),
    ("HugePages_Total", "HugePages_Total"),
    ("Hugepagesize", "Hugepagesize_bytes"),
    ("Inactive", "Inactive_bytes"),
    ("Inactive(anon)", "Inactive_anon_bytes"),
    ("Inactive(file)", "Inactive_file_bytes"),
    ("KernelStack", "KernelStack_bytes"),
    ("Mapped", "Mapped_bytes"),
    ("MemAvailable", "MemAvailable_bytes"),
    ("MemFree", "MemFree_bytes"),
    ("MemTotal", "MemTotal_bytes"),
    ("Mlocked", "Mlocked_bytes"),
    ("NFS_Unstable", "NFS_Unstable_bytes"),
    ("PageTables", "PageTables_bytes"),
    ("Percpu", "Percpu_bytes"),
    ("SReclaimable", "SReclaimable_bytes"),
    ("SUnreclaim", "SUnreclaim_bytes"),
    ("Shmem", "Shmem_bytes"),
    ("ShmemHugePages", "ShmemHugePages_bytes"),
    ("ShmemPmdMapped", "ShmemPmdMapped_bytes"),
    ("Slab", "Slab_bytes"),
    ("SwapCached", "SwapCached_bytes"),
    ("SwapFree", "SwapFree_bytes"),
    ("SwapTotal", "SwapTotal_bytes"),
    ("Unevictable", "Unevictable_bytes"),
    ("VmallocChunk", "VmallocChunk_bytes"),
    ("VmallocTotal", "VmallocTotal_bytes"),
    ("VmallocUsed", "VmallocUsed_bytes"),
    ("Writeback", "Writeback_bytes"),
    ("WritebackTmp", "WritebackTmp_bytes"),
    ("Zswap", "Zswap_bytes"),
    ("Zswapped", "Zswapped_bytes"),
];

pub struct Memory(Vec<(&'static [u8], GaugeFamily)>);

impl Memory {
    pub fn new(d: &mut Describe) -> Self {
        let family = |(field, name): &(&'static str, &str)| {
            let gauge = d.gauge(&format!("node_memory_{name}"), &format!("Memory information field {name}."));
            (field.as_bytes(), gauge)
        };
        Self(FIELDS.iter().map(family).collect())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let text = root.read("/proc/meminfo")?;
        let mut malformed = Malformed::new("/proc/meminfo");
        for line in lines(&text) {
            let mut fields = words(line);
            let field = fields.next().and_then(|f| f.strip_suffix(b":"));
            match (field, fields.next().and_then(unsigned), fields.next()) {
                (Some(field), Some(value), unit @ (None | Some(b"kB"))) => {
                    let at = self.0.binary_search_by(|(name, _)| (*name).cmp(field));
                    if let Some((_, gauge)) = at.ok().and_then(|at| self.0.get(at)) {
                        gauge.set(value as f64 * if unit.is_some() { 1024.0 } else { 1.0 });
                    }
                }
                _ => malformed.add(line),
            }
        }
        malformed.report(c);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_ordered() {
        assert!(super::FIELDS.is_sorted_by_key(|(field, _)| field.as_bytes()));
    }
}
