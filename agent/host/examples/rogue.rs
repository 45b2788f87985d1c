//! A worker that was taken over: says it is ready, and then does what a worker may not. What, the program's own name says.
//! Never shipped.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use picket_agent_host::trial;

const LOADED: u64 = 1;
const INSTANCE: u64 = 2;

fn main() -> std::io::Result<()> {
    let name = std::env::args().next().unwrap_or_default();
    let mode = name.rsplit("rogue-").next().unwrap_or_default().to_owned();
    let mut socket = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    match mode.as_str() {
        "silent" => return wait(&mut socket),
        "gone" => return Ok(()),
        "other-version" => socket.write_all(&trial::frame(1, 0, b"\x05other\0"))?,
        _ => socket.write_all(&trial::ready())?,
    }
    if mode == "at-once" {
        // Nobody has asked for anything.
        socket.write_all(&trial::ask(INSTANCE))?;
        return wait(&mut socket);
    }
    next(&mut socket)?;
    match mode.as_str() {
        "never-loads" => return wait(&mut socket),
        "loads-another" => socket.write_all(&trial::loaded(LOADED + 7))?,
        _ => socket.write_all(&trial::loaded(LOADED))?,
    }
    next(&mut socket)?;
    socket.write_all(&trial::made(INSTANCE))?;
    next(&mut socket)?;
    socket.write_all(&trial::done(INSTANCE, true))?;
    next(&mut socket)?;
    socket.write_all(&trial::done(INSTANCE, false))?;
    // A collect.
    next(&mut socket)?;
    match mode.as_str() {
        "garbage" => socket.write_all(&trial::frame(4, INSTANCE, &[0xff; 300]))?,
        "unknown-kind" => socket.write_all(&trial::frame(99, INSTANCE, &[]))?,
        // A length of 4 GiB, and nothing after it.
        "huge" => socket.write_all(&[0xff, 0xff, 0xff, 0xff, 4, 2, 0, 0, 0, 0, 0, 0, 0])?,
        // A list of a billion families in as many bytes as may come: all of them empty.
        "many-parts" => {
            let mut body = vec![1, 0xff, 0xff, 0xff, 0xff, 0x03];
            body.resize(8 << 20, 0);
            socket.write_all(&trial::frame(4, INSTANCE, &body))?;
        }
        "another-instance" => socket.write_all(&trial::ask(INSTANCE + 9))?,
        "asks-twice" => {
            // After an answer to the first the second would be due: so many at once that no answer comes between all of them.
            socket.write_all(&trial::ask(INSTANCE).repeat(256))?;
        }
        "done-twice" => {
            socket.write_all(&trial::done(INSTANCE, false))?;
            socket.write_all(&trial::done(INSTANCE, false))?;
        }
        "half" => socket.write_all(&[9, 0, 0])?,
        "stalls" => {}
        "dies" => std::process::abort(),
        // Well-formed, one after the other, without end.
        "floods" => loop {
            socket.write_all(&trial::ask(INSTANCE))?;
            next(&mut socket)?;
        },
        // As much as the socket takes, unasked.
        "pours" => loop {
            socket.write_all(&trial::ask(INSTANCE))?;
        },
        _ => {}
    }
    wait(&mut socket)
}

/// Reads one frame.
fn next(socket: &mut File) -> std::io::Result<()> {
    let mut head = [0; 13];
    socket.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)
}

/// Until the agent has had enough.
fn wait(socket: &mut File) -> std::io::Result<()> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all)?;
    Ok(())
}
