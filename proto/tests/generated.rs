//! `src/generated` is what the `.proto` files say. `PICKET_UPDATE=1 cargo test -p picket-proto` writes it anew.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile(["picket/v1/uplink.proto", "picket/v1/spool.proto"], [root]).unwrap();
    tonic_prost_build::configure()
        .bytes(".picket.v1.Batch.columns")
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    for name in ["picket.v1.rs", "picket.spool.v1.rs"] {
        let fresh = std::fs::read_to_string(out.path().join(name)).unwrap();
        let kept = root.join("src/generated").join(name);
        #[allow(clippy::disallowed_methods)]
        if std::env::var("PICKET_UPDATE").is_ok() {
            std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
            std::fs::write(&kept, &fresh).unwrap();
        }
        let held = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(held == fresh, "{} is stale: PICKET_UPDATE=1 cargo test -p picket-proto", kept.display());
    }
}
