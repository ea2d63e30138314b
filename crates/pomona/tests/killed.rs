//! Runs that are killed and started again, from the command line. `scripts/kill_test.py` does this on large models.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Folder;

#[test]
fn taylor_scores_of_a_killed_run_are_those_of_an_unbroken_one() {
    for more in [&[][..], &["--iterative", "2"]] {
        let folder = Folder::new();
        let settings = [
            "--criterion",
            "taylor",
            "--data",
            "text.txt",
            "--samples",
            "10",
            "--tokens",
            "40",
            "--save-every",
            "0",
        ];
        let words = |out| [&["-q", "score", "model", "-o", out], &settings[..], more].concat();
        folder.ok(&words("whole.json"));
        let mut killed = 0;
        // The state appears while the run works; a run that was too fast for the kill is complete.
        for stop in 1..=6_u32 {
            let mut child = folder
                .command(&words("scores.json"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let began = Instant::now();
            while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
                if folder.path(".scores.json.work/boundary-00001").exists() {
                    std::thread::sleep(Duration::from_millis(u64::from(stop) * 3));
                    child.kill().unwrap();
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            killed += u32::from(!child.wait().unwrap().success());
        }
        println!("{killed} of 6 runs were killed");
        assert!(killed > 0);
        folder.ok(&words("scores.json"));
        assert_eq!(folder.read("scores.json"), folder.read("whole.json"));
        assert!(!folder.path(".scores.json.work").exists());
    }
}
