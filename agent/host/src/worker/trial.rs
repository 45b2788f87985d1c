//! See [`crate::trial`].

use picket_agent_services::always::Level;

use super::wire::{Ready, Report, VERSION};
use crate::ask::Ask;
use crate::call::{Cost, Returned};
use crate::wall::Wall;

fn encoded(number: u64, report: &Report) -> Vec<u8> {
    report.encode(number).unwrap_or_default()
}

pub(crate) fn ready() -> Vec<u8> {
    encoded(0, &Report::Ready(Ready { version: VERSION.to_owned(), wall: Wall::default() }))
}

pub(crate) fn loaded(seat: u64) -> Vec<u8> {
    encoded(seat, &Report::Loaded(Ok(())))
}

pub(crate) fn made(instance: u64) -> Vec<u8> {
    encoded(instance, &Report::Made(Ok(())))
}

pub(crate) fn ask(instance: u64) -> Vec<u8> {
    encoded(instance, &Report::Ask(Ask::Log(Level::Debug, "again".to_owned())))
}

pub(crate) fn done(instance: u64, describe: bool, cost: Cost) -> Vec<u8> {
    let returned = if describe { Returned::Described(Vec::new()) } else { Returned::Done(Ok(())) };
    encoded(instance, &Report::Done(Ok(returned), cost))
}
