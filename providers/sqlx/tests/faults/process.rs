//! Workers: processes of this binary that the test sends requests to, stops and kills.

use std::collections::HashMap;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use crate::member::{Answer, Ask, Member, Settings};

/// Contains a worker's settings, and makes the process a worker.
const VARIABLE: &str = "ENCX_TEST_WORKER";

#[derive(Serialize, Deserialize)]
struct Question {
    number: u64,
    ask: Ask,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    number: u64,
    answer: Answer,
}

/// Returns the settings of this process, if it is a worker.
pub(crate) fn worker_settings() -> Option<Settings> {
    let settings = std::env::var(VARIABLE).ok()?;
    Some(serde_json::from_str(&settings).unwrap())
}

/// Serves requests until the pipe is closed, which happens when the test ends in any way.
pub(crate) fn serve(settings: Settings) {
    // A stopped process does not notice that the pipe is closed.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    encx_testkit::block_on(async {
        let member = Arc::new(Member::new(settings).await);
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let Question { number, ask } = serde_json::from_str(&line).unwrap();
            let member = Arc::clone(&member);
            tokio::spawn(async move {
                let performed = tokio::spawn(async move { member.perform(ask).await });
                let Ok(answer) = performed.await else {
                    // The request panicked and printed why. End the process, so that the test does not wait for an
                    // answer.
                    std::process::exit(101);
                };
                let mut line = serde_json::to_string(&Reply { number, answer }).unwrap();
                line.push('\n');
                // Writing fails if the test is over.
                drop(std::io::stdout().lock().write_all(line.as_bytes()));
            });
        }
    });
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A worker process. Killed when dropped.
pub(crate) struct Worker {
    child: Child,
    questions: tokio::sync::Mutex<(u64, ChildStdin)>,
    waiting: Waiting,
}

impl Worker {
    /// Starts a process.
    pub(crate) fn start(settings: &Settings) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(VARIABLE, serde_json::to_string(settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let questions = tokio::sync::Mutex::new((0, child.stdin.take().unwrap()));
        let waiting = Waiting::default();
        let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
        let asked = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok(Some(line)) = replies.next_line().await {
                let Reply { number, answer } = serde_json::from_str(&line).unwrap();
                if let Some(asked) = asked.lock().unwrap().remove(&number) {
                    // The caller may no longer be waiting.
                    drop(asked.send(answer));
                }
            }
            // The worker died: waiting callers get an error.
            asked.lock().unwrap().clear();
        });
        Self {
            child,
            questions,
            waiting,
        }
    }

    /// Sends a request, and waits for the answer.
    ///
    /// # Panics
    ///
    /// If the process dies, or does not answer within a minute.
    pub(crate) async fn ask(&self, ask: Ask) -> Answer {
        self.try_ask(ask).await.expect("the worker lives")
    }

    /// Sends a request. `None` if the process dies before it answers.
    pub(crate) async fn try_ask(&self, ask: Ask) -> Option<Answer> {
        let (send, answer) = oneshot::channel();
        let what = format!("{ask:?}");
        {
            let mut questions = self.questions.lock().await;
            questions.0 += 1;
            let number = questions.0;
            self.waiting.lock().unwrap().insert(number, send);
            let mut line = serde_json::to_string(&Question { number, ask }).unwrap();
            line.push('\n');
            questions.1.write_all(line.as_bytes()).await.ok()?;
        }
        let answer = tokio::time::timeout(Duration::from_secs(60), answer);
        answer
            .await
            .unwrap_or_else(|_| panic!("no answer to {what}"))
            .ok()
    }

    /// Kills the process with -9, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    /// Stops the process where it is, as when its machine hangs.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues the process.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}
