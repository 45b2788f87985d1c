use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::grants::Granted;

struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, path: &str) -> String {
        // The folder itself may lie behind a link (/tmp on some systems).
        self.folder.path().canonicalize().unwrap().join(path).to_str().unwrap().to_owned()
    }

    /// A file of so many bytes that was last changed so many days ago.
    fn file(&self, path: &str, bytes: usize, days: u64) -> String {
        let path = self.at(path);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, vec![b'x'; bytes]).unwrap();
        let when = SystemTime::now() - Duration::from_secs(days * 86_400);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(when).unwrap();
        path
    }

    fn rules(&self, delete: &[&str], days: u64) -> Rules {
        let delete: Vec<String> = delete.iter().map(|p| self.at(p)).collect();
        let scope = Scope { delete, older_than_seconds: days * 86_400, ..Scope::example() };
        Scope::compile(&[&scope]).unwrap()
    }

    fn rule(&self, pattern: &str) -> Rule {
        Rule { pattern: self.at(pattern), older_than: 0, at_least: 0, most: 100 }
    }
}

async fn ask(rules: &Rules, request: Request) -> Result<Answer, Error> {
    call(rules, &ServiceLimits::default(), request).await
}

async fn find(rules: &Rules, rule: Rule) -> Vec<Found> {
    match ask(rules, Request::Find { rule }).await.unwrap() {
        Answer::Found { files, .. } => files,
        other => panic!("{other:?}"),
    }
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|f| f.path.rsplit('/').next().unwrap()).collect()
}

#[tokio::test]
async fn age_size_and_pattern() {
    let tree = Tree::new();
    tree.file("cores/a.core", 100, 9);
    tree.file("cores/deep/er/b.core", 5000, 5);
    tree.file("cores/young.core", 100, 1);
    tree.file("cores/keep.txt", 100, 9);
    tree.file("other/c.core", 100, 9);
    let rules = tree.rules(&["cores/**/*.core"], 3);
    let all = find(&rules, tree.rule("cores/**/*.core")).await;
    assert_eq!(names(&all), ["a.core", "b.core"], "the oldest first, none that is too young");
    let large = Rule { at_least: 1000, ..tree.rule("cores/**/*.core") };
    assert_eq!(names(&find(&rules, large).await), ["b.core"]);
    let older = Rule { older_than: 7 * 86_400, ..tree.rule("cores/**/*.core") };
    assert_eq!(names(&find(&rules, older).await), ["a.core"]);
    let one = Request::Find { rule: Rule { most: 1, ..tree.rule("cores/**/*.core") } };
    assert!(matches!(ask(&rules, one).await, Ok(Answer::Found { files, more: true }) if files.len() == 1));
    assert_eq!(names(&find(&rules, tree.rule("cores/*.core")).await), ["a.core"]);
    assert!(find(&rules, tree.rule("cores/none/*.core")).await.is_empty());

    assert_eq!(ask(&rules, Request::Delete { found: all[0].clone() }).await, Ok(Answer::Deleted));
    assert!(!Path::new(&all[0].path).exists());
    assert_eq!(ask(&rules, Request::Delete { found: all[0].clone() }).await, Ok(Answer::Gone));
}

#[tokio::test]
async fn outside_of_the_grant() {
    let tree = Tree::new();
    let kept = tree.file("other/c.core", 100, 9);
    tree.file("cores/keep.txt", 100, 9);
    let rules = tree.rules(&["cores/**/*.core"], 0);
    for pattern in ["other/*.core", "cores/**", "cores/../other/*.core", "**", "cores/*"] {
        let ended = ask(&rules, Request::Find { rule: tree.rule(pattern) }).await;
        assert!(matches!(ended, Err(Error::Denied(_) | Error::Invalid(_))), "{pattern}: {ended:?}");
    }
    let stat = Found { modified: 0, path: kept.clone(), bytes: 100, inode: 1, device: 1 };
    for path in [kept.clone(), tree.at("cores/../other/c.core"), tree.at("cores/keep.txt"), String::new()] {
        let ended =
            ask(&rules, Request::Delete { found: Found { path: path.clone(), ..stat.clone() } }).await;
        assert!(matches!(ended, Err(Error::Denied(_))), "{path}: {ended:?}");
    }
    assert!(Path::new(&kept).exists());
}

#[tokio::test]
async fn links_lead_nowhere() {
    let tree = Tree::new();
    let kept = tree.file("other/c.core", 100, 9);
    tree.file("cores/a.core", 100, 9);
    symlink(tree.at("other"), tree.at("cores/way")).unwrap();
    symlink(&kept, tree.at("cores/link.core")).unwrap();
    symlink("/proc/self/root", tree.at("cores/root")).unwrap();
    let rules = tree.rules(&["cores/**/*.core"], 0);
    let found = find(&rules, tree.rule("cores/**/*.core")).await;
    assert_eq!(names(&found), ["a.core"]);
    // By their names, with what is known of the file behind them.
    let meta = std::fs::metadata(&kept).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    let modified = meta.mtime() as u64 * 1_000_000_000 + meta.mtime_nsec() as u64;
    for path in ["cores/way/c.core", "cores/link.core"] {
        let found =
            Found { modified, path: tree.at(path), bytes: 100, inode: meta.ino(), device: meta.dev() };
        assert!(ask(&rules, Request::Delete { found }).await.is_err(), "{path}");
    }
    assert!(Path::new(&kept).exists());
    // The granted folder itself became a link.
    std::fs::rename(tree.at("cores"), tree.at("moved")).unwrap();
    symlink(tree.at("moved"), tree.at("cores")).unwrap();
    let ended = ask(&rules, Request::Find { rule: tree.rule("cores/**/*.core") }).await;
    assert!(matches!(&ended, Err(Error::Denied(why)) if why.contains("is a link")), "{ended:?}");
    assert!(ask(&rules, Request::Delete { found: found[0].clone() }).await.is_err());
    assert!(Path::new(&tree.at("moved/a.core")).exists());
}

#[tokio::test]
async fn only_the_very_file_that_was_found() {
    let tree = Tree::new();
    tree.file("cores/a.core", 100, 9);
    let rules = tree.rules(&["cores/*.core"], 1);
    let found = find(&rules, tree.rule("cores/*.core")).await.remove(0);
    // Another file is put in its place, of the same size and time.
    std::fs::rename(tree.at("cores/a.core"), tree.at("cores/aside")).unwrap();
    tree.file("cores/a.core", 100, 9);
    assert!(matches!(ask(&rules, Request::Delete { found: found.clone() }).await, Err(Error::Changed(_))));
    std::fs::remove_file(tree.at("cores/a.core")).unwrap();
    std::fs::create_dir(tree.at("cores/a.core")).unwrap();
    assert!(matches!(ask(&rules, Request::Delete { found: found.clone() }).await, Err(Error::Changed(_))));
    std::fs::remove_dir(tree.at("cores/a.core")).unwrap();
    // The same file, written to since.
    std::fs::rename(tree.at("cores/aside"), tree.at("cores/a.core")).unwrap();
    std::fs::write(tree.at("cores/a.core"), "new").unwrap();
    assert!(matches!(ask(&rules, Request::Delete { found }).await, Err(Error::Changed(_))));
    assert!(Path::new(&tree.at("cores/a.core")).exists());
    // Told with its new time, it is too young for the grant.
    let meta = std::fs::metadata(tree.at("cores/a.core")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    let young = Found {
        modified: meta.mtime() as u64 * 1_000_000_000 + meta.mtime_nsec() as u64,
        path: tree.at("cores/a.core"),
        bytes: meta.size(),
        inode: meta.ino(),
        device: meta.dev(),
    };
    assert!(matches!(ask(&rules, Request::Delete { found: young }).await, Err(Error::Denied(_))));
}

#[tokio::test]
async fn a_mount_is_not_crossed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a_mount_is_not_crossed needs root");
        return;
    }
    let tree = Tree::new();
    tree.file("cores/a.core", 100, 9);
    let other = Tree::new();
    let kept = other.file("b.core", 100, 9);
    std::fs::create_dir(tree.at("cores/mount")).unwrap();
    let mount = |arguments: &[&str]| std::process::Command::new("mount").args(arguments).status();
    // A bind of the same file system: its device is the same one, only the mount is another.
    if !mount(&["--bind", &other.at(""), &tree.at("cores/mount")]).is_ok_and(|s| s.success()) {
        eprintln!("skipped: a_mount_is_not_crossed may not mount");
        return;
    }
    let rules = tree.rules(&["cores/**/*.core"], 0);
    let found = find(&rules, tree.rule("cores/**/*.core")).await;
    let direct = Found { path: tree.at("cores/mount/b.core"), ..found[0].clone() };
    let ended = ask(&rules, Request::Delete { found: direct }).await;
    std::process::Command::new("umount").arg(tree.at("cores/mount")).status().unwrap();
    assert_eq!(names(&found), ["a.core"]);
    assert!(matches!(ended, Err(Error::Denied(_))), "{ended:?}");
    assert!(Path::new(&kept).exists());
}

#[test]
fn grants_that_make_no_sense() {
    for delete in [
        json!([]),
        json!(["/*"]),
        json!(["/tmp/*"]),
        json!(["/etc/x/*"]),
        json!(["/usr/share/x/**"]),
        json!(["x"]),
    ] {
        let grant: Value = json!({ "delete": delete });
        let scope: Scope = serde_json::from_value(grant.clone()).unwrap();
        assert!(Scope::compile(&[&scope]).is_err(), "{grant}");
    }
}

#[tokio::test]
async fn bundles_are_bounded_and_stay_where_they_are() {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = Tree::new();
    let folder = tree.at("bundles");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    let scope: Scope =
        serde_json::from_value(json!({ "bundle_dir": folder, "bundle_bytes": 20, "bundles": 2 })).unwrap();
    let rules = Scope::compile(&[&scope]).unwrap();
    let put = |bundle: &str, file: &str, content: &str, first: bool| {
        let content = content.as_bytes().to_vec();
        Request::Put(Put { bundle: bundle.to_owned(), file: file.to_owned(), content, first })
    };
    for (file, content, first) in [("a.txt", "old", true), ("a.txt", "one ", true), ("a.txt", "two", false)] {
        ask(&rules, put("x", file, content, first)).await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(format!("{folder}/x/a.txt")).unwrap(), "one two");
    let mode = std::fs::metadata(format!("{folder}/x/a.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let long = ask(&rules, put("x", "b.txt", "fourteen bytes", true)).await;
    assert!(matches!(long, Err(Error::TooLarge(_))), "{long:?}");
    for name in ["..", ".hidden", "a/b", "", "-x", "../x", "x\ny"] {
        for request in [put(name, "a", "", true), put("x", name, "", true)] {
            assert!(matches!(ask(&rules, request).await, Err(Error::Invalid(_))), "{name:?}");
        }
    }
    // A link in a file's or a bundle's place.
    let kept = tree.file("kept", 3, 0);
    symlink(&kept, format!("{folder}/x/link")).unwrap();
    assert!(ask(&rules, put("x", "link", "y", true)).await.is_err());
    symlink(tree.at("."), format!("{folder}/way")).unwrap();
    assert!(ask(&rules, put("way", "kept", "y", true)).await.is_err());
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "xxx");
    // The oldest goes.
    std::fs::remove_file(format!("{folder}/x/link")).unwrap();
    for bundle in ["y", "z"] {
        ask(&rules, put(bundle, "a", "b", true)).await.unwrap();
    }
    assert!(Path::new(&format!("{folder}/z/a")).exists());
    let left =
        std::fs::read_dir(&folder).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count();
    assert_eq!(left, 2);
    // Somebody else may write there.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(ask(&rules, put("y", "a", "b", true)).await, Err(Error::Denied(_))));
    let none = tree.rules(&["cores/*"], 0);
    assert!(matches!(ask(&none, put("x", "a", "b", true)).await, Err(Error::Denied(_))));
}
