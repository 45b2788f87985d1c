use super::*;
use std::os::unix::fs::symlink;
use std::time::Instant;

struct Fixture {
    files: Files,
    desk: Desk,
    limits: ServiceLimits,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            files: Files::default(),
            desk: Desk::default(),
            limits: ServiceLimits { read_bytes: 1000, directory_entries: 10, ..ServiceLimits::default() },
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().canonicalize().unwrap().join(name).to_str().unwrap().to_owned()
    }

    async fn call(&self, granted: &[&str], request: Request) -> Result<Answer, Error> {
        let granted: Vec<String> = granted.iter().map(|g| (*g).to_owned()).collect();
        let set = PathSet::new(&granted).unwrap();
        self.files.call(&self.desk, &set, &set, &self.limits, request).await
    }

    async fn read(&self, granted: &[&str], path: &str) -> Result<Answer, Error> {
        self.call(granted, Request::Read { path: path.to_owned() }).await
    }
}

fn bytes(answer: Result<Answer, Error>) -> Vec<u8> {
    match answer {
        Ok(Answer::Bytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_kernels_files() {
    let f = Fixture { limits: ServiceLimits::default(), ..Fixture::new() };
    for path in [
        "/proc/stat",
        "/proc/mounts",
        "/proc/net/dev",
        "/proc/self/mountinfo",
        "/proc/1/mountinfo",
        "/sys/class/net/lo/mtu",
    ] {
        assert!(!bytes(f.read(&[path], path).await).is_empty(), "{path}");
    }
    assert!(!bytes(f.read(&["/sys/class/net/*/mtu"], "/sys/class/net/lo/mtu").await).is_empty());
    assert!(!bytes(f.read(&["/proc/*/stat"], "/proc/1/stat").await).is_empty());
    let list =
        f.call(&["/sys/class/net"], Request::ListDirectory { path: "/sys/class/net".to_owned() }).await;
    assert!(
        matches!(&list, Ok(Answer::Entries(e)) if e.iter().any(|e| e.name == "lo" && e.kind == EntryKind::Link)),
        "{list:?}"
    );
    let link = f.call(&["/proc/mounts"], Request::ReadLink { path: "/proc/mounts".to_owned() }).await;
    assert_eq!(link, Ok(Answer::Target("self/mounts".to_owned())));
}

#[tokio::test]
async fn no_way_out_of_the_kernels_files() {
    let f = Fixture::new();
    for path in [
        "/proc/self/root/etc/passwd",
        "/proc/self/exe",
        "/proc/self/cwd/Cargo.toml",
        "/proc/1/root/etc/passwd",
    ] {
        let answer = f.read(&["/proc/**"], path).await;
        assert!(matches!(answer, Err(Error::Denied(_) | Error::Io(_))), "{path}: {answer:?}");
    }
    for path in
        ["/proc/../etc/passwd", "/etc/passwd", "proc/stat", "/proc//stat", "/proc/./stat", "/proc/stat\0x"]
    {
        assert!(matches!(f.read(&["/proc/**"], path).await, Err(Error::Denied(_))), "{path}");
    }
}

/// Each for itself: what is denied, missing or of another kind is said in its place.
#[tokio::test]
async fn several_at_once() {
    let f = Fixture::new();
    std::fs::create_dir(f.path("root")).unwrap();
    for (name, length) in [("a", 600), ("b", 500), ("c", 400), ("secret", 10)] {
        std::fs::write(f.path(&format!("root/{name}")), vec![b'x'; length]).unwrap();
    }
    symlink("../secret", f.path("root/out")).unwrap();
    std::fs::write(f.path("secret"), "outside").unwrap();
    let mine = ["a", "b", "c", "none", "out"].map(|name| f.path(&format!("root/{name}")));
    let mut granted: Vec<&str> = mine.iter().map(String::as_str).collect();
    granted.push("/proc/sys/kernel/ostype");
    let names = ["root/a", "root/none", "root/secret", "root/out", "root/b", "root/c"];
    let mut paths: Vec<String> = names.iter().map(|name| f.path(name)).collect();
    paths.insert(1, "/proc/sys/kernel/ostype".to_owned());
    paths.insert(2, "/proc/self/root/etc/passwd".to_owned());
    let Ok(Answer::Many(answers)) = f.call(&granted, Request::ReadMany { paths: paths.clone() }).await else {
        panic!("no list")
    };
    let said: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(bytes) => format!("{}", bytes.0.len()),
            Err(Error::Denied(_)) => "denied".to_owned(),
            Err(Error::NotFound(_)) => "not found".to_owned(),
            Err(Error::TooLarge(_)) => "too large".to_owned(),
            Err(other) => panic!("{other:?}"),
        })
        .collect();
    // A thousand bytes in all: `b` does not fit behind `a` and the kernel's word, `c` does not either.
    assert_eq!(said, ["600", "6", "denied", "not found", "denied", "denied", "too large", "too large"]);
    assert_eq!(bytes(f.read(&granted, &paths[6]).await).len(), 500, "by itself it is read");

    let many = vec!["/proc/sys/kernel/ostype".to_owned(); READ_AT_ONCE + 1];
    let f = Fixture { limits: ServiceLimits::default(), ..Fixture::new() };
    let Ok(Answer::Many(answers)) = f.call(&granted, Request::ReadMany { paths: many }).await else {
        panic!("no list")
    };
    assert!(answers[..READ_AT_ONCE].iter().all(|a| a.as_ref().is_ok_and(|bytes| bytes.0 == b"Linux\n")));
    assert!(matches!(&answers[READ_AT_ONCE], Err(Error::TooLarge(_))), "{:?}", answers[READ_AT_ONCE]);
}

#[tokio::test]
async fn links_stay_inside_and_lead_to_what_is_granted() {
    let f = Fixture::new();
    std::fs::create_dir(f.path("root")).unwrap();
    std::fs::write(f.path("root/file"), "inside").unwrap();
    std::fs::write(f.path("secret"), "outside").unwrap();
    symlink("file", f.path("root/near")).unwrap();
    symlink("../secret", f.path("root/out")).unwrap();
    symlink(f.path("secret"), f.path("root/absolute")).unwrap();
    symlink("..", f.path("root/up")).unwrap();
    symlink("loop", f.path("root/loop")).unwrap();
    let tree = f.path("root/**");
    let tree = [tree.as_str()];
    assert_eq!(bytes(f.read(&tree, &f.path("root/file")).await), b"inside");
    assert_eq!(bytes(f.read(&tree, &f.path("root/near")).await), b"inside");
    for bad in ["root/out", "root/absolute", "root/up/secret", "root/loop"] {
        let answer = f.read(&tree, &f.path(bad)).await;
        assert!(matches!(answer, Err(Error::Denied(_))), "{bad}: {answer:?}");
    }
    // One path is granted, and it is a link to one that is not.
    let one = f.path("root/near");
    assert!(matches!(f.read(&[&one], &one).await, Err(Error::Denied(m)) if m.contains("a link to")));
    let both = [one.as_str(), &f.path("root/file")];
    assert_eq!(bytes(f.read(&both, &one).await), b"inside");
}

#[tokio::test]
async fn only_regular_files_of_a_bounded_size() {
    let f = Fixture::new();
    let fifo = f.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &*fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    std::fs::write(f.path("long"), vec![b'x'; 1001]).unwrap();
    std::fs::write(f.path("fits"), vec![b'x'; 1000]).unwrap();
    let all = f.path("**");
    let all = [all.as_str(), "/dev/null"];
    let start = Instant::now();
    assert!(matches!(f.read(&all, &fifo).await, Err(Error::WrongKind(m)) if m.contains("FIFO")));
    assert!(start.elapsed() < f.limits.file_time, "a FIFO must not be waited for");
    assert!(matches!(f.read(&all, "/dev/null").await, Err(Error::WrongKind(_))));
    assert!(matches!(f.read(&all, &f.path("")).await, Err(Error::WrongKind(_))));
    assert!(matches!(f.read(&all, &f.path("long")).await, Err(Error::TooLarge(_))));
    assert_eq!(bytes(f.read(&all, &f.path("fits")).await).len(), 1000);
    assert!(matches!(f.read(&all, &f.path("none")).await, Err(Error::NotFound(_))));
    assert!(matches!(
        f.read(&["/proc/kallsyms"], "/proc/kallsyms").await,
        Err(Error::TooLarge(_) | Error::Io(_) | Error::NotFound(_))
    ));
    let list = f.call(&all, Request::ListDirectory { path: fifo.clone() }).await;
    assert!(matches!(list, Err(Error::WrongKind(_))), "{list:?}");
    for i in 0..11 {
        std::fs::write(f.path(&format!("n{i}")), "").unwrap();
    }
    let list = f.call(&all, Request::ListDirectory { path: f.path("") }).await;
    assert!(matches!(list, Err(Error::TooLarge(_))), "{list:?}");
}

#[tokio::test]
async fn when_a_file_was_changed() {
    let f = Fixture::new();
    let (file, link, outside) = (f.path("in/page.prom"), f.path("in/link"), f.path("secret"));
    std::fs::create_dir(f.path("in")).unwrap();
    std::fs::write(&file, "x").unwrap();
    std::fs::write(&outside, "x").unwrap();
    symlink(&outside, &link).unwrap();
    let at = std::time::UNIX_EPOCH + Duration::new(1_700_000_000, 250_000_000);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
    let granted = f.path("in/**");
    let ask = async |path: &str| f.call(&[&granted], Request::Modified { path: path.to_owned() }).await;
    assert_eq!(ask(&file).await, Ok(Answer::Modified(1_700_000_000_250_000_000)));
    // Neither outside of the grant, nor by a link that leads there.
    assert!(matches!(ask(&outside).await, Err(Error::Denied(_))));
    assert!(matches!(ask(&link).await, Err(Error::Denied(_))));
    assert!(matches!(ask(&f.path("in/none")).await, Err(Error::NotFound(_))));
    assert!(matches!(
        f.call(&["/proc/stat"], Request::Modified { path: "/proc/stat".to_owned() }).await,
        Ok(Answer::Modified(_))
    ));
}

#[tokio::test]
async fn file_systems() {
    let f = Fixture::new();
    let stat = async |granted: &str, paths: &[&str]| {
        let paths = paths.iter().map(|p| (*p).to_owned()).collect();
        match f.call(&[granted], Request::StatFileSystems { paths }).await {
            Ok(Answer::FileSystems(answers)) => answers,
            other => panic!("{other:?}"),
        }
    };
    let answers = stat("/**", &["/", "/is/not/there", "/proc"]).await;
    let [Ok(root), Err(Error::NotFound(_)), Ok(proc)] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(root.size_bytes > 0 && root.available_bytes <= root.size_bytes && proc.size_bytes == 0);
    // What is not granted is said in its place.
    let answers = stat("/proc", &["/", "/proc", "/../proc"]).await;
    let denied = |path: &str| Err(Error::Denied(path.to_owned()));
    assert_eq!((answers[0].clone(), answers[2].clone()), (denied("/"), denied("/../proc")));
    assert!(answers[1].is_ok() && stat("/**", &[]).await.is_empty());
}

#[tokio::test]
async fn a_plugin_whose_reads_hang_gets_no_more_threads() {
    let f = Fixture::new();
    std::fs::write(f.path("file"), "x").unwrap();
    let all = f.path("**");
    f.desk.hung.store(HUNG_PER_PLUGIN, Ordering::Relaxed);
    assert!(matches!(f.read(&[&all], &f.path("file")).await, Err(Error::TimedOut(_))));
    f.desk.hung.store(0, Ordering::Relaxed);
    assert!(f.read(&[&all], &f.path("file")).await.is_ok());
}
