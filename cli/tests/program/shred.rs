//! `encx shred`: from the plan to the receipt.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::sealed::{SSN, add_rows, add_silent_process, create_table, forget_processes};
use crate::support::{Place, Ran, on_both};

/// Creates tenants `t-0` and `t-1` with rows; `t-1` has a second purpose.
pub(crate) fn with_tenants(place: &Place) {
    place.write_private("encx.toml", SSN);
    create_table(place, "users");
    add_rows(place, "users", 0..10, 2);
    place.ok(&["keys", "rotate", "-c", "tenantId=t-1", "-c", "purpose=pii"]);
    place.ok(&["keys", "create", "-c", "tenantId=t-1", "-c", "purpose=logs"]);
}

pub(crate) fn plan(place: &Place) -> Value {
    let _ = fs::remove_file(place.path("plan.json"));
    let plan = [
        "shred",
        "plan",
        "-c",
        "tenantId=t-1",
        "--every",
        "--out",
        "plan.json",
        "--format",
        "json",
    ];
    serde_json::from_str(&place.ok(&plan)).unwrap()
}

const RUN: [&str; 9] = [
    "shred",
    "run",
    "plan.json",
    "--receipts",
    "receipts",
    "--because",
    "contract ended",
    "--patience",
    "20s",
];

pub(crate) fn run(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&RUN[..], more].concat())
}

pub(crate) fn verify(place: &Place) -> Ran {
    place.run(&["shred", "verify", "--receipts", "receipts", "--format", "json"])
}

pub(crate) fn replay(place: &Place, more: &[&str]) -> Ran {
    let replay = [
        "shred",
        "replay",
        "--receipts",
        "receipts",
        "--because",
        "restored from a backup",
        "--patience",
        "20s",
    ];
    place.run(&[&replay[..], more].concat())
}

/// Reads the receipts in number order.
pub(crate) fn receipts(place: &Place) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(place.path("receipts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .collect();
    files.sort();
    let read = files
        .iter()
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
    read.collect()
}

/// Returns the kinds of findings for each receipt.
pub(crate) fn findings(ran: &Ran) -> Vec<Vec<String>> {
    let lines = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|of| {
            let kinds = of["findings"].as_array().unwrap().iter();
            let mut kinds: Vec<_> = kinds
                .map(|finding| finding["kind"].as_str().unwrap().to_owned())
                .collect();
            kinds.dedup();
            kinds
        })
        .collect()
}

pub(crate) fn none_of(receipts: usize) -> Vec<Vec<String>> {
    vec![Vec::new(); receipts]
}

pub(crate) fn states(place: &Place) -> Vec<String> {
    let list = place.ok(&[
        "keys",
        "list",
        "--all",
        "-c",
        "tenantId=t-1",
        "-c",
        "purpose=pii",
        "--usage",
        "data",
        "--format",
        "json",
    ]);
    let lines = list
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|version| version["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_tenant_is_planned_shredded_and_verified() {
    on_both(|place| {
        with_tenants(&place);
        place
            .run(&["shred", "plan", "-c", "tenantId=t-1"])
            .expect(4)
            .says("has no key yet");
        let plan = plan(&place);
        let contexts = plan["contexts"].as_array().unwrap();
        assert_eq!(contexts.len(), 2, "{plan}");
        let pii = contexts
            .iter()
            .find(|of| of["context"]["purpose"] == "pii")
            .unwrap();
        assert_eq!(pii["rows"][0]["rows"], 5, "{plan}");
        assert_eq!(pii["versions"].as_array().unwrap().len(), 2);
        assert_eq!(pii["keks"].as_array().unwrap().len(), 1);
        let survives = plan["survives"].to_string();
        assert!(
            survives.contains("Backups of the key store") && survives.contains("local/"),
            "{survives}"
        );
        let table = place.ok(&["shred", "plan", "-c", "tenantId=t-1", "--every"]);
        assert!(
            table.contains("5 in users.ssn") && table.contains("What survives:"),
            "{table}"
        );
        // A plan file is not overwritten.
        place
            .run(&[
                "shred",
                "plan",
                "-c",
                "tenantId=t-1",
                "--every",
                "--out",
                "plan.json",
            ])
            .expect(1);

        run(&place, &[]).expect(1).says("say --yes");
        run(&place, &["--dry-run"])
            .expect(0)
            .says("would destroy 3 versions");
        assert_eq!(states(&place), ["deactivated", "active"]);
        run(&place, &["--yes"])
            .expect(0)
            .says("the last receipt's digest is");
        assert_eq!(states(&place), ["destroyed", "destroyed"]);
        let written = receipts(&place);
        assert_eq!(written.len(), 2);
        for receipt in &written {
            assert_eq!(receipt["format"], "encx/shred-receipt/1");
            assert_eq!(receipt["reason"], "contract ended");
            assert_eq!(receipt["processes"]["complete"], true);
            assert!(receipt["by"].as_str().unwrap().contains("encx"), "{receipt}");
        }
        let of_pii = written
            .iter()
            .find(|receipt| receipt["context"]["purpose"] == "pii")
            .unwrap();
        assert_eq!(of_pii["rows"][0]["rows"], 5);

        let verified = verify(&place).expect(0).says("2 receipts form a whole chain");
        assert_eq!(findings(&verified), none_of(2));
        assert!(
            verified.stdout.contains("\"rows_tried\":5"),
            "{}",
            verified.stdout
        );
        run(&place, &["--yes"])
            .expect(0)
            .says("every context of the plan is destroyed and has its receipt");
        assert_eq!(receipts(&place), written);
        replay(&place, &["--yes"])
            .expect(0)
            .says("every version that the receipts list is destroyed");
        // The other tenant can still write.
        add_rows(&place, "users", 20..21, 2);

        let first = fs::read_dir(place.path("receipts"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let first = first
            .into_iter()
            .find(|path| path.to_str().unwrap().contains("/0001-"))
            .unwrap();
        let text = fs::read_to_string(&first).unwrap();
        fs::write(&first, text.replace("contract ended", "contract Ended")).unwrap();
        let name = first.file_name().unwrap().to_str().unwrap().to_owned();
        verify(&place).expect(3).says(&name).says("was changed");
        run(&place, &["--yes"]).expect(3).says("was changed");
        fs::remove_file(&first).unwrap();
        verify(&place).expect(3).says("receipt number 1 is missing");
    });
}

#[test]
fn a_plan_that_is_outdated_destroys_nothing() {
    on_both(|place| {
        with_tenants(&place);
        plan(&place);
        place.ok(&["keys", "rotate", "-c", "tenantId=t-1", "-c", "purpose=pii"]);
        run(&place, &["--yes"])
            .expect(4)
            .says("nothing was destroyed")
            .says("has version 3");
        plan(&place);
        let first = serde_json::from_slice::<Value>(&fs::read(place.path("plan.json")).unwrap()).unwrap();
        let id = first["contexts"][0]["versions"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        place.ok(&["keys", "suspend", &id, "--yes"]);
        run(&place, &["--yes"])
            .expect(4)
            .says("was changed and is suspended");
        plan(&place);
        place.ok(&["keys", "create", "-c", "tenantId=t-1", "-c", "purpose=billing"]);
        run(&place, &["--yes"])
            .expect(4)
            .says("purpose=billing tenantId=t-1 has a key now");
        let text = fs::read_to_string(place.path("plan.json")).unwrap();
        let edited = text.replacen("\"revision\": 1", "\"revision\": 2", 1);
        assert_ne!(text, edited);
        fs::write(place.path("plan.json"), edited).unwrap();
        run(&place, &["--yes"]).expect(1).says("the plan was edited");
        assert!(!states(&place).contains(&"destroyed".to_owned()));
    });
}

#[test]
fn one_that_is_killed_between_two_contexts_goes_on() {
    on_both(|place| {
        with_tenants(&place);
        plan(&place);
        // The run waits for this process at each context.
        add_silent_process(&place);
        let mut child = place
            .command(&[&RUN[..7], &["--patience", "2s", "--yes", "--format", "json"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["receipt"]["processes"]["complete"], false, "{event}");
        assert!(
            event["receipt"]["processes"]["serves_until"].is_string(),
            "{event}"
        );
        assert_eq!(receipts(&place).len(), 1);
        assert_eq!(findings(&verify(&place).expect(3)), [["incomplete"]]);
        forget_processes(&place);
        // Both contexts get complete receipts.
        run(&place, &["--yes"]).expect(0);
        let complete: Vec<_> = receipts(&place)
            .into_iter()
            .filter(|receipt| receipt["processes"]["complete"] == true)
            .map(|receipt| receipt["context"]["purpose"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(complete.len(), 2, "{complete:?}");
        let verified = verify(&place).expect(0);
        assert!(findings(&verified).iter().all(Vec::is_empty));
    });
}

#[test]
fn a_context_whose_versions_are_on_their_way_goes_on() {
    on_both(|place| {
        with_tenants(&place);
        let plan = plan(&place);
        // As a run killed between two versions leaves it: one of them is suspended.
        let mut contexts = plan["contexts"].as_array().unwrap().iter();
        let pii = contexts.find(|of| of["context"]["purpose"] == "pii").unwrap();
        let active = pii["versions"][1]["id"].as_str().unwrap();
        place.ok(&["keys", "suspend", active, "--yes"]);
        run(&place, &["--yes"]).expect(4);
        let begun = format!("receipts/.encx-run-{}", plan["digest"].as_str().unwrap());
        fs::write(place.path(&begun), "").unwrap();
        run(&place, &["--yes"]).expect(0);
        assert_eq!(receipts(&place).len(), 2);
        assert!(!fs::exists(place.path(&begun)).unwrap());
        verify(&place).expect(0);
    });
}

#[test]
fn a_context_that_was_destroyed_without_a_receipt_gets_it() {
    on_both(|place| {
        with_tenants(&place);
        plan(&place);
        run(&place, &["--yes"]).expect(0);
        let before = receipts(&place);
        // As if the run had been killed before it wrote the second receipt.
        let second = fs::read_dir(place.path("receipts"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_str().unwrap().contains("/0002-"))
            .unwrap();
        fs::remove_file(second).unwrap();
        run(&place, &["--yes"]).expect(0);
        assert_eq!(receipts(&place), before);
    });
}
