//! statvfs(3) of mounts, some of which may not answer: a network file system whose server is gone holds the thread that
//! asks for as long as it is gone.
//!
//! All mounts of one request are asked in turn by one thread, because the way to a thread and back costs ten times what the
//! question does. One that does not answer in time is left to its thread, and another thread goes on with those after it.
//! It is remembered, so that each next question about it costs neither time nor a thread.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Error, FileSystem, open, timed_out};

/// File systems that may hang at a time.
const HUNG: usize = 64;
/// Mounts of one request.
const MOST: usize = 4096;

/// The questions that are not answered yet, of all plugins.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) asked: Arc<Mutex<HashMap<PathBuf, Asked>>>,
}

/// A question to a file system that is not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub since: Instant,
    pub threads: usize,
}

impl Mounts {
    /// One answer a path, in their order.
    pub async fn stat(&self, paths: Vec<String>, limit: Duration) -> Vec<Result<FileSystem, Error>> {
        self.stat_with(paths, limit, open::stat_file_system).await
    }

    pub(super) async fn stat_with(
        &self,
        paths: Vec<String>,
        limit: Duration,
        ask: fn(&str) -> Result<FileSystem, Error>,
    ) -> Vec<Result<FileSystem, Error>> {
        let round = Arc::new(Round {
            asked: Arc::clone(&self.asked),
            limit,
            ask,
            state: Mutex::new(State { answers: vec![None; paths.len()], ..State::default() }),
            paths,
            ended: Notify::new(),
        });
        let mut turn = 0;
        loop {
            let worker = Arc::clone(&round);
            drop(tokio::task::spawn_blocking(move || worker.run(turn)));
            match round.wait().await {
                Waited::Done(answers) => return answers,
                Waited::Hangs(next) => turn = next,
            }
        }
    }
}

/// The mounts of one request.
struct Round {
    asked: Arc<Mutex<HashMap<PathBuf, Asked>>>,
    limit: Duration,
    ask: fn(&str) -> Result<FileSystem, Error>,
    paths: Vec<String>,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    answers: Vec<Option<Result<FileSystem, Error>>>,
    next: usize,
    /// What is being asked, since when.
    current: Option<(usize, Instant)>,
    /// Whose turn it is: a thread that comes back too late finds that it is another's.
    turn: usize,
}

enum Waited {
    Done(Vec<Result<FileSystem, Error>>),
    /// Another thread is to go on, with this turn.
    Hangs(usize),
}

impl Round {
    /// Asks what is left, until there is nothing or the turn is another's.
    fn run(&self, turn: usize) {
        loop {
            let (at, path) = {
                let mut state = lock(&self.state);
                if state.turn != turn {
                    return;
                }
                let at = state.next;
                let Some(path) = self.paths.get(at) else {
                    state.current = None;
                    self.ended.notify_one();
                    return;
                };
                state.next += 1;
                state.current = Some((at, Instant::now()));
                (at, path)
            };
            let answer = self.question(at, path);
            let mut state = lock(&self.state);
            if state.turn != turn {
                return;
            }
            if let Some(place) = state.answers.get_mut(at) {
                *place = Some(answer);
            }
        }
    }

    fn question(&self, at: usize, path: &str) -> Result<FileSystem, Error> {
        if at >= MOST {
            return Err(Error::TooLarge(format!("{path} is one of more than {MOST} mounts at a time")));
        }
        let key = PathBuf::from(path);
        {
            let mut asked = lock(&self.asked);
            if asked.get(&key).is_some_and(|a| a.since.elapsed() >= self.limit) {
                return Err(Error::TimedOut(format!("{path}: an earlier question still hangs")));
            }
            if asked.len() >= HUNG {
                return Err(Error::TimedOut(format!("{path}: {HUNG} file systems hang")));
            }
            asked.entry(key.clone()).or_insert(Asked { since: Instant::now(), threads: 0 }).threads += 1;
        }
        let answer = (self.ask)(path);
        let mut asked = lock(&self.asked);
        if let Some(a) = asked.get_mut(&key) {
            a.threads -= 1;
            if a.threads == 0 {
                asked.remove(&key);
            }
        }
        answer
    }

    /// Until all is answered, or one question has taken its time.
    async fn wait(&self) -> Waited {
        let mut time = self.limit;
        loop {
            let ended = tokio::time::timeout(time, self.ended.notified()).await.is_ok();
            let mut state = lock(&self.state);
            let late = match state.current {
                // A thread that never began: the system has none to give.
                None if !ended && state.next == 0 => Some(0),
                Some((at, since)) if !ended => {
                    let left = self.limit.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        Some(at)
                    } else {
                        time = left;
                        continue;
                    }
                }
                _ => None,
            };
            if let Some(at) = late {
                state.turn += 1;
                state.next = state.next.max(at + 1);
                state.current = None;
                let path = self.paths.get(at).map_or("", String::as_str);
                let error = timed_out(path, self.limit);
                if let Some(place) = state.answers.get_mut(at) {
                    *place = Some(Err(error));
                }
                if state.next < self.paths.len() {
                    return Waited::Hangs(state.turn);
                }
            }
            let answers = std::mem::take(&mut state.answers).into_iter().zip(&self.paths);
            return Waited::Done(
                answers.map(|(a, path)| a.unwrap_or_else(|| Err(timed_out(path, self.limit)))).collect(),
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    fn slow(path: &str) -> Result<FileSystem, Error> {
        if path.starts_with("/hangs") {
            std::thread::sleep(8 * LIMIT);
        }
        match path {
            "/none" => Err(Error::NotFound(path.to_owned())),
            _ => Ok(FileSystem {
                size_bytes: path.len() as u64,
                free_bytes: 0,
                available_bytes: 0,
                files: 0,
                files_free: 0,
                read_only: false,
            }),
        }
    }

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|p| (*p).to_owned()).collect()
    }

    #[tokio::test]
    async fn each_gets_its_answer_and_one_that_hangs_holds_up_no_other() {
        let mounts = Mounts::default();
        let list = paths(&["/a", "/hangs", "/none", "/hangs/too", "/ab"]);
        let start = Instant::now();
        let answers = mounts.stat_with(list.clone(), LIMIT, slow).await;
        assert!(start.elapsed() < 5 * LIMIT, "{:?}", start.elapsed());
        let timed_out = |answer: &Result<FileSystem, Error>| matches!(answer, Err(Error::TimedOut(_)));
        let sizes: Vec<Option<u64>> = answers.iter().map(|a| a.as_ref().ok().map(|f| f.size_bytes)).collect();
        assert_eq!(sizes, [Some(2), None, None, None, Some(3)]);
        assert!(timed_out(&answers[1]) && timed_out(&answers[3]), "{answers:?}");
        assert_eq!(answers[2], Err(Error::NotFound("/none".to_owned())));

        // From now on they cost no time, until they answer.
        let start = Instant::now();
        let again = mounts.stat_with(list, LIMIT, slow).await;
        assert!(start.elapsed() < LIMIT && timed_out(&again[1]) && timed_out(&again[3]), "{again:?}");
        let deadline = Instant::now() + 40 * LIMIT;
        while !lock(&mounts.asked).is_empty() {
            assert!(Instant::now() < deadline, "the threads come back");
            tokio::time::sleep(LIMIT / 10).await;
        }
        assert!(mounts.stat_with(paths(&["/a"]), LIMIT, slow).await[0].is_ok());
    }

    #[tokio::test]
    async fn the_last_one_may_hang_and_there_may_be_none() {
        let mounts = Mounts::default();
        assert!(mounts.stat_with(Vec::new(), LIMIT, slow).await.is_empty());
        let answers = mounts.stat_with(paths(&["/a", "/hangs"]), LIMIT, slow).await;
        assert!(answers[0].is_ok() && matches!(answers[1], Err(Error::TimedOut(_))), "{answers:?}");
    }

    #[tokio::test]
    async fn what_hangs_is_bounded() {
        let mounts = Mounts::default();
        for n in 0..HUNG {
            let since = Instant::now();
            lock(&mounts.asked).insert(PathBuf::from(format!("/{n}")), Asked { since, threads: 1 });
        }
        let answers = mounts.stat_with(paths(&["/a"]), LIMIT, slow).await;
        assert!(matches!(answers[0], Err(Error::TimedOut(_))), "{answers:?}");
    }
}
