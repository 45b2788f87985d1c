//! Running other programs: one place that says what was run when it fails.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Cargo, as the one that runs this program, in the repository's root.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root);
    // `cargo run` says of xtask who it is. Build scripts that look at such variables (ring's) would run again after each change
    // from `cargo xtask` to plain `cargo`, and all that depends on them be compiled again.
    for (name, _) in std::env::vars_os() {
        let own = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if own {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it with the terminal as its own; an error if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    if run_ok(command)? { Ok(()) } else { bail!("failed: {}", line(command)) }
}

/// Runs it with the terminal as its own; whether it succeeded.
pub fn run_ok(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    Ok(status.success())
}

/// Runs it and gives its standard output; its standard error is part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", line(command), output.status, talk.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it, passing on both outputs as they come and keeping them. Whether it succeeded, and the lines.
pub fn tee(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", line(command)))?;
    let errors = child.stderr.take().context("no standard error")?;
    let talk = std::thread::spawn(move || pass_on(errors, std::io::stderr()));
    let mut lines = match child.stdout.take() {
        Some(out) => pass_on(out, std::io::stdout()),
        None => Vec::new(),
    };
    lines.extend(talk.join().unwrap_or_default());
    Ok((child.wait()?.success(), lines))
}

fn pass_on(from: impl std::io::Read, mut to: impl Write) -> Vec<String> {
    let mut kept = Vec::new();
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let _ = to.write_all(&bytes).and_then(|()| to.flush());
        kept.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        bytes.clear();
    }
    kept
}

/// Where a program stands on PATH.
pub fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|file| is_program(file))
}

/// Whether it is a file that may be run.
pub fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}
