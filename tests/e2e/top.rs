//! `picket top` in a real terminal, over a real fleet. It draws the picture that the README shows.

use anyhow::{Context, Result, ensure};
use e2e::{Terminal, Test, eventually, repository, run};

const PICTURE: &str = "docs/images/top.svg";
const FLEET: [&str; 5] = ["gpu-01", "gpu-02", "gpu-03", "gpu-04", "gpu-05"];

/// `WRITE_PICTURE=1` makes the picture anew.
#[test]
fn a_fleet_in_a_terminal() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let mut agents = Vec::new();
        for (seed, name) in FLEET.iter().enumerate() {
            let agent = aggregator.agent(test, name)?.mock("500ms", &format!("seed = {seed}"))?;
            agents.push(agent.enrol_and_start(&aggregator).await?);
        }
        let mut terminal =
            Terminal::start(&mut aggregator.cli_command(&["top", "--interval", "500ms"])?, 11, 96)?;
        let filled = "each node's values in the table";
        eventually(filled, || async {
            let text = terminal.text();
            ensure!(text.contains("5 of 5 nodes up"), "{text}");
            for name in FLEET {
                let row = text.lines().find(|line| line.starts_with(name)).with_context(|| text.clone())?;
                let cells: Vec<&str> = row.split_whitespace().collect();
                ensure!(cells.len() == 12 && !cells.contains(&"–") && cells[1] == "up", "{row}");
            }
            Ok(())
        })
        .await?;
        // One that ends is told by colour and word.
        drop(agents.pop());
        eventually("the node that is gone", || async {
            let text = terminal.text();
            ensure!(text.contains("4 of 5 nodes up"), "{text}");
            Ok(())
        })
        .await?;
        let picture = terminal.picture()?;
        ensure!(FLEET.iter().all(|name| picture.contains(name)), "{picture}");
        if std::env::var_os("WRITE_PICTURE").is_some() {
            // As long as the address of a test, so that nothing moves.
            let picture = picture.replace(aggregator.api.url(), "https://aggregator:9471");
            std::fs::write(repository().join(PICTURE), picture)?;
        }
        ensure!(repository().join(PICTURE).is_file(), "{PICTURE} is missing: run this with WRITE_PICTURE=1");
        terminal.press(b"q")?;
        let status = terminal.ended().await?;
        ensure!(status.success(), "ended with {status}: {}", terminal.text());
        Ok(()) as Result<()>
    });
}
