//! CPU time to the nanosecond, of a process and those below it, from the scheduler's own clock (proc(5), `schedstat`).
//!
//! `stat` counts in ticks of 10 ms, which is as much as a few collections. The scheduler's clock is kept a thread, and what
//! a thread that ended had counted is gone with it: where that is more than a tick a process, the ticks are taken.

use std::fs;

use anyhow::{Context, Result};

/// CPU time so far.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    fine: f64,
    coarse: f64,
    processes: usize,
}

impl Cpu {
    pub fn of_tree(pid: u32) -> Result<Self> {
        let mut cpu = Self { fine: 0.0, coarse: 0.0, processes: 0 };
        let all = processes();
        let mut tree = vec![pid];
        let mut at = 0;
        while let Some(one) = tree.get(at).copied() {
            cpu.fine += threads(one).with_context(|| format!("the process {one} is gone"))?;
            cpu.coarse += all.iter().find(|p| p.0 == one).map_or(0.0, |p| p.2);
            tree.extend(all.iter().filter(|(_, parent, _)| *parent == one).map(|p| p.0));
            at += 1;
        }
        cpu.processes = tree.len();
        Ok(cpu)
    }

    /// Seconds since then.
    pub fn since(&self, before: &Self) -> f64 {
        let (fine, coarse) = (self.fine - before.fine, self.coarse - before.coarse);
        let slack = 0.02 * self.processes.max(before.processes) as f64;
        if (fine - coarse).abs() <= slack { fine } else { coarse }
    }
}

fn threads(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // One that ended meanwhile is none.
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// Every process with its parent and its CPU seconds in ticks.
fn processes() -> Vec<(u32, u32, f64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<f64> = rest.split_whitespace().map(|w| w.parse().unwrap_or(0.0)).collect();
        // After the name: state, parent …; user and system time are the fields 14 and 15.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
        found.push((pid, field(4) as u32, (field(14) + field(15)) / 100.0));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_to_less_than_a_tick() {
        let me = std::process::id();
        let before = Cpu::of_tree(me).unwrap();
        let begun = std::time::Instant::now();
        let mut n = 0u64;
        while begun.elapsed().as_millis() < 40 {
            n = std::hint::black_box(n.wrapping_mul(31) + 1);
        }
        let seconds = Cpu::of_tree(me).unwrap().since(&before);
        assert!((0.005..2.0).contains(&seconds), "{seconds}");
        assert!(Cpu::of_tree(u32::MAX).is_err());
    }
}
