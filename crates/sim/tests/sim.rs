//! What the simulator promises of itself.

use std::process::Command;

fn sim(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().expect("sim runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn hash(seed: &str) -> String {
    let (_, said) = sim(&["--seed", seed]);
    let line = said.lines().find(|line| line.starts_with("hash "));
    line.unwrap_or_else(|| panic!("no hash: {said}")).to_owned()
}

#[test]
fn one_seed_is_one_history_in_two_processes() {
    let first = hash("3");
    assert_eq!(first, hash("3"), "the hash is over every request, answer, commit and fault");
    assert_ne!(first, hash("4"));
}

#[test]
fn a_history_also_repeats_beside_others() {
    let (ok, said) = sim(&["--seeds", "3..7", "--jobs", "2"]);
    assert!(ok, "{said}");
    assert!(said.contains("4 seeds"), "{said}");
}

#[test]
fn steps_that_are_left_out_leave_the_others_as_they_were() {
    let (_, whole) = sim(&["--seed", "5", "--steps", "20", "--trace"]);
    let (_, part) = sim(&["--seed", "5", "--steps", "20", "--without", "0-9", "--trace"]);
    let asked = |said: &str, step: &str| said.lines().any(|line| line.contains(&format!(" {step} ")));
    assert!(asked(&whole, "#3") && !asked(&part, "#3") && asked(&part, "#19"), "{part}");
}

/// A patch that no longer fits would only be noticed by the long suite.
#[test]
fn every_planted_defect_still_applies() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut patches = 0;
    for entry in std::fs::read_dir(root.join("crates/sim/defects")).unwrap() {
        let patch = entry.unwrap().path();
        let check = std::process::Command::new("git")
            .args(["apply", "--check", "--recount", "-C1"])
            .arg(&patch)
            .current_dir(&root)
            .output()
            .unwrap();
        assert!(check.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&check.stderr));
        patches += 1;
    }
    assert!(patches >= 10);
}
