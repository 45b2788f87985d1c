use super::*;

const GOOD: &str = r#"
id = "RUSTSEC-2026-0001"
ghsa = "GHSA-aaaa-bbbb-cc11"
title = "A fault"
patched = [">= 36.0.7, < 37.0.0", ">= 48.0.3"]
verdict = "patched"
why = "mended"
"#;

fn facts() -> Facts {
    Facts {
        locked: locked("[[package]]\nname = \"wasmtime\"\nversion = \"48.0.8\"\n").unwrap(),
        features: ["gc", "std"].map(str::to_owned).into(),
        engine: code("config\n    .wasm_gc(false) // off\n    .wasm_simd(true)\n    // .wasm_threads(false)"),
        host: code(
            "config.wasm_gc(false).wasm_simd(true); late.wasm_simd(false); linker.instantiate_async()",
        ),
    }
}

fn table(rows: &[&str]) -> Table {
    toml::from_str(&rows.iter().map(|row| format!("[[advisory]]\n{row}")).collect::<String>()).unwrap()
}

fn errors(rows: &[&str]) -> Vec<String> {
    let mut findings = Findings::default();
    table(rows).check(&facts(), |path| path == "tests/wall.rs", &mut findings);
    findings.errors
}

/// The good row with one line in the place of another.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replace(old, new)
}

#[test]
fn rows_that_hold() {
    assert_eq!(errors(&[GOOD]), Vec::<String>::new());
    let off = with("\"patched\"", "\"feature-off\"");
    let held = with("\"patched\"", "\"contained\"");
    for row in [
        format!("{off}without_crate = [\"wasmtime-wasi\"]"),
        format!("{off}without_feature = [\"winch\"]"),
        format!("{off}switch = [\"wasm_gc(false)\"]"),
        format!("{held}with_feature = [\"gc\"]"),
        format!("{held}without_call = [\"get_module_export\"]"),
        format!("{held}test = [\"tests/wall.rs\"]"),
        with("id = \"RUSTSEC-2026-0001\"\nghsa = ", "id = "),
    ] {
        assert_eq!(errors(&[&row]), Vec::<String>::new(), "{row}");
    }
}

#[test]
fn rows_that_do_not() {
    let off = with("\"patched\"", "\"feature-off\"");
    let held = with("\"patched\"", "\"contained\"");
    for (row, said) in [
        (with("48.0.3", "48.0.9"), "the locked wasmtime (48.0.8) has no fix"),
        (format!("{GOOD}package = \"wasmtime-wasi\""), "the locked wasmtime-wasi (none) has no fix"),
        (with("RUSTSEC-2026-0001", "RUSTSEC-26-1"), "an id is"),
        (with("GHSA-aaaa-bbbb-cc11", "CVE-2026-1"), "`ghsa` is"),
        (with("ghsa = \"GHSA-aaaa-bbbb-cc11\"", ""), "`ghsa` is"),
        (with("mended", "one | two"), "`why` is one line"),
        (with("A fault", " "), "`title` is one line"),
        (off.clone(), "name what is off"),
        (held.clone(), "name what holds it"),
        (format!("{off}with_feature = [\"gc\"]"), "name what is off"),
        (format!("{held}without_crate = [\"wasmtime-wasi\"]"), "name what holds it"),
        (format!("{off}without_crate = [\"wasmtime\"]"), "wasmtime is in Cargo.lock"),
        (format!("{off}without_feature = [\"gc\"]"), "gc is a feature"),
        (format!("{held}with_feature = [\"threads\"]"), "threads is no feature"),
        (format!("{off}switch = [\"wasm_threads(false)\"]"), "wasm_threads(false) is not what"),
        (format!("{off}switch = [\"wasm_gc(true)\"]"), "wasm_gc(true) is not what"),
        (format!("{off}switch = [\"wasm_simd(true)\"]"), "wasm_simd(true) is not what"),
        (format!("{off}switch = [\"wasm_gc\"]"), "wasm_gc is not what"),
        (format!("{held}without_call = [\"instantiate_async\"]"), "instantiate_async is named"),
        (format!("{held}test = [\"tests/none.rs\"]"), "tests/none.rs is no file"),
    ] {
        let errors = errors(&[&row]);
        assert!(errors.iter().any(|error| error.contains(said)), "{said}: {errors:?}\n{row}");
    }
}

#[test]
fn a_name_stands_once() {
    let other = with("RUSTSEC-2026-0001", "RUSTSEC-2026-0002");
    assert_eq!(errors(&[GOOD, &other]), [format!("{TABLE}: GHSA-aaaa-bbbb-cc11 stands there twice")]);
}

#[test]
fn unknown_keys_and_verdicts_are_refused() {
    for row in
        [format!("{GOOD}swich = []"), with("\"patched\"", "\"harmless\""), with("48.0.3", "forty-eight")]
    {
        assert!(toml::from_str::<Table>(&format!("[[advisory]]\n{row}")).is_err(), "{row}");
    }
}

fn advisory(id: &str, date: &str, rest: &str) -> String {
    format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"wasmtime\"\ndate = \"{date}\"\n{rest}\n```\n\n# A fault\n"
    )
}

/// A database with these files, under `crates/`.
fn database(files: &[(&str, String)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join("crates").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn compared(rows: &[&str], files: &[(&str, String)]) -> Findings {
    let mut findings = Findings::default();
    let folder = database(files);
    database::compare(&table(rows), &database::read(folder.path()).unwrap(), &facts(), &mut findings);
    findings
}

#[test]
fn the_database_has_nothing_that_the_table_lacks() {
    let fixed = "aliases = [\"CVE-2026-1\", \"GHSA-aaaa-bbbb-cc11\"]\n[versions]\npatched = [\">= 48.0.3\"]";
    let old = advisory("RUSTSEC-2023-0009", "2023-09-01", "[versions]\npatched = []");
    let withdrawn =
        advisory("RUSTSEC-2026-0003", "2026-02-01", "withdrawn = \"2026-03-01\"\n[versions]\npatched = []");
    let draft = advisory("RUSTSEC-0000-0000", "2026-02-01", "[versions]\npatched = []");
    let unasked = advisory("RUSTSEC-2026-0004", "2026-02-01", "[versions]\npatched = []");
    let files = [
        ("wasmtime/RUSTSEC-2026-0001.md", advisory("RUSTSEC-2026-0001", "2026-01-01", fixed)),
        ("wasmtime/RUSTSEC-2023-0009.md", old),
        ("wasmtime/RUSTSEC-2026-0003.md", withdrawn),
        ("wasmtime/RUSTSEC-0000-0000.md", draft),
        ("tokio/RUSTSEC-2026-0004.md", unasked.clone()),
    ];
    let findings = compared(&[GOOD], &files);
    assert_eq!((findings.errors, findings.warnings), (vec![], vec![]));

    let findings = compared(&[GOOD], &[("cranelift-codegen/RUSTSEC-2026-0004.md", unasked)]);
    assert_eq!(
        findings.errors,
        [format!("{TABLE} lacks RUSTSEC-2026-0004 (wasmtime): judge it and give it a row")]
    );
}

#[test]
fn a_row_by_its_alias_is_told_its_id() {
    let row = with("id = \"RUSTSEC-2026-0001\"\nghsa = ", "id = ");
    let rest = "aliases = [\"GHSA-aaaa-bbbb-cc11\"]\n[versions]\npatched = [\">= 48.0.3\"]";
    let findings = compared(
        &[&row],
        &[("wasmtime/RUSTSEC-2026-0001.md", advisory("RUSTSEC-2026-0001", "2026-01-01", rest))],
    );
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    assert!(
        findings.warnings.iter().any(|w| w.contains("is RUSTSEC-2026-0001 by now")),
        "{:?}",
        findings.warnings
    );
}

#[test]
fn a_fix_is_one_in_the_database_too() {
    for (versions, wrong) in [
        ("patched = [\">= 48.0.9\"]", true),
        ("patched = [\">= 48.0.9\"]\nunaffected = [\"< 47.0.0\"]", true),
        ("patched = [\">= 50.0.0\"]\nunaffected = [\"< 49.0.0\"]", false),
        ("patched = []", true),
    ] {
        let text = advisory("RUSTSEC-2026-0001", "2026-01-01", &format!("[versions]\n{versions}"));
        let errors = compared(&[GOOD], &[("wasmtime/RUSTSEC-2026-0001.md", text)]).errors;
        assert_eq!(
            errors.iter().any(|e| e.contains("has no fix, says the database")),
            wrong,
            "{versions}: {errors:?}"
        );
    }
}

#[test]
fn what_is_no_database_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    assert!(database::read(empty.path()).is_err());
    let broken = database(&[("wasmtime/RUSTSEC-2026-0001.md", "# no head".to_owned())]);
    assert!(database::read(broken.path()).is_err());
}

#[test]
fn the_database_is_found_where_the_tools_keep_it() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(database::find_in(home.path()), None);
    for folder in ["advisory-db", "advisory-dbs/github.com-2f857891b7f43c59"] {
        let folder = home.path().join(folder);
        std::fs::create_dir_all(folder.join("crates/wasmtime")).unwrap();
        assert_eq!(database::find_in(home.path()), Some(folder.clone()));
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn the_page_shows_every_row() {
    let row = format!("{}without_call = [\"a\", \"b\"]", with("\"patched\"", "\"contained\""));
    let rows = page::shown(&table(&[&row]), &facts());
    assert!(rows.starts_with("1 advisories: 0 feature off, 0 patched, 1 contained."), "{rows}");
    assert!(rows.contains("built with Wasmtime 48.0.8, which has no fix of 0:"), "{rows}");
    assert!(
        rows.contains("| A fault | 36.0.7, 48.0.3 | contained | mended (never called: `a`, `b`) |\n"),
        "{rows}"
    );
    let page = "# Page\n<!-- advisories -->\nold\n<!-- /advisories -->\nend\n";
    let new = page::with_table(page, "new\n").unwrap();
    assert_eq!(new, "# Page\n<!-- advisories -->\nnew\n<!-- /advisories -->\nend\n");
    assert_eq!(page::with_table("no marks", "new\n"), None);
}
