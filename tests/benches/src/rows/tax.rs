//! The WASM tax: CPU of a collection by the `node` plugin in the sandbox against the same code compiled natively.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::report::Figure;
use crate::setup::Places;

const ROW: &str = "tax";

/// Both sides are small programs that collect in a loop and print the microseconds of CPU a collection.
pub fn measure(places: &Places, runs: usize, quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { "50" } else { "500" };
    let (mut wasm, mut walled, mut native) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        eprintln!("tax: run {} of {runs}", run + 1);
        let collect_loop = places.ours("examples/collect-loop")?;
        let mut arguments = vec![
            places.plugins.join("node.wasm").display().to_string(),
            std::fs::canonicalize(places.ours("picket-compile")?)?.display().to_string(),
            rounds.to_owned(),
        ];
        wasm.push(microseconds(&collect_loop, &arguments)?);
        arguments.push(std::fs::canonicalize(places.ours("picket-worker")?)?.display().to_string());
        walled.push(microseconds(&collect_loop, &arguments)?);
        native.push(microseconds(
            Path::new("plugins/target/release/examples/native-collect-loop"),
            &[rounds.to_owned()],
        )?);
    }
    let ratio: Vec<f64> = wasm.iter().zip(&native).map(|(w, n)| w / n).collect();
    Ok(vec![
        Figure::new(
            ROW,
            "node plugin, a collection",
            "CPU µs",
            false,
            &wasm,
            Some(("native", &native)),
            None,
        ),
        Figure::new(ROW, "the same in a worker", "CPU µs", false, &walled, Some(("native", &native)), None),
        Figure::new(ROW, "sandbox / native", "times", false, &ratio, None, Some(1.25)),
    ])
}

fn microseconds(program: &Path, args: &[String]) -> Result<f64> {
    let out = Command::new("taskset")
        .args(["-c", "0"])
        .arg(program)
        .args(args)
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    if !out.status.success() {
        bail!("{}: {}", program.display(), String::from_utf8_lossy(&out.stderr));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    text.trim().parse().with_context(|| format!("{} printed {text:?}", program.display()))
}
