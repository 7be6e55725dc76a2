//! Creates everything that a service needs: a KEK with a policy, an alias, automatic rotation, and replicas. Prints the
//! identity policy for the service's role if it needs one. Run again, it changes nothing, and says so.
//!
//! ```sh
//! cargo run -p encx-aws --example provision -- \
//!   --alias alias/shop-pii --account 111122223333 --user arn:aws:iam::111122223333:role/shop --replica eu-west-1
//! ```
//!
//! Needs credentials with `IdentityPolicy::administrator`, and `AWS_REGION`. Name all users on every run: the policy is
//! built from the arguments alone. Without `--user` and `--lifecycle-user`, the account's identity policies decide who
//! uses the key.
//!
//! It checks everything that it can before the first change. On an existing key, which Terraform may own, it changes
//! only what the command line names: its policy with `--replace-policy`, after showing which principals lose and gain
//! what; its rotation with `--rotation-days`; tags with `--tag`. If it fails, it says what exists now and how to
//! continue.
//!
//! | argument | means |
//! | --- | --- |
//! | `--user`, `--lifecycle-user`, `--administrator`, `--auditor`, `--key-deleter` | roles and users by ARN, repeatable |
//! | `--context KEY=VALUE`, again for another value | users may use the key only under contexts with these pairs |
//! | `--enforce-context` | only under contexts of encx, with any values |
//! | `--rotation-days N` | 90 to 2560; a new key has 90 |
//! | `--tag KEY=VALUE` | in addition to `encx` = `kek` |
//! | `--key ARN` | continues with this key, which has no alias yet |
//! | `--format json` | prints ids, ARNs, changes and the service's settings as JSON, and everything else on standard error |
//!
//! With `--print-policy NAME` it prints one policy and calls no service: `administrator` and `key` need `--account`;
//! `service`, `lifecycle` and `auditor` need `--kek` with the key's ARN, once for each region.
#![allow(clippy::print_stdout, reason = "a program whose output is its work")]
#![allow(clippy::print_stderr, reason = "a program that says what it does")]

mod arguments;

use std::error::Error;
use std::process::ExitCode;

use encx::kms::KekId;
use encx_aws::AwsKms;
use encx_aws::admin::{Change, FoundKek, KmsAdmin, NewKek, RotationPeriod};
use encx_aws::policy::{KeyPolicy, PolicyDifference};
use serde_json::json;

use crate::arguments::Arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut done = Done::default();
    let Err(error) = run(&mut done).await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("provision: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("caused by: {error}");
        cause = error.source();
    }
    done.say_how_to_go_on();
    ExitCode::FAILURE
}

/// What was done so far.
#[derive(Default)]
struct Done {
    is_quiet: bool,
    changes: Vec<(String, Change)>,
    /// A key that was created in this run, and its properties.
    made: Option<Made>,
    alias: String,
}

struct Made {
    kek: KekId,
    is_named: bool,
    is_rotated: bool,
}

impl Done {
    fn note(&mut self, what: String, change: Change) {
        self.say(&format!("{what}: {change}"));
        self.changes.push((what, change));
    }

    fn say(&self, line: &str) {
        if self.is_quiet {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    fn say_how_to_go_on(&self) {
        let changed = self
            .changes
            .iter()
            .filter(|(_, change)| *change != Change::Unchanged);
        let changed: Vec<_> = changed
            .map(|(what, change)| format!("  {what}: {change}"))
            .collect();
        if changed.is_empty() {
            eprintln!("Nothing was changed.");
            return;
        }
        eprintln!("What was done stays:\n{}", changed.join("\n"));
        let mut further = String::new();
        if let Some(made) = &self.made {
            if !made.is_named {
                further.push_str(&format!(
                    " with --key {} besides, for `{}` does not name it yet",
                    made.kek, self.alias
                ));
            }
            if !made.is_rotated {
                further.push_str(" and with --rotation-days 90, unless you named a period");
            }
        }
        eprintln!("To go on, put right what failed, and run the same command again{further}.");
    }
}

async fn run(done: &mut Done) -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if let Some(name) = &arguments.print_policy {
        println!("{}", arguments.policy_named(name)?);
        return Ok(());
    }
    done.is_quiet = arguments.as_json;
    let alias = arguments.alias()?;
    alias.clone_into(&mut done.alias);
    let policy = arguments.key_policy()?;
    let mut builder = AwsKms::builder();
    // It also checks that they are regions. In tests they all have one address.
    let elsewhere = std::env::var("PROVISION_REPLICA_ENDPOINT").ok();
    for region in &arguments.replicas {
        let own = format!("https://kms.{region}.amazonaws.com");
        builder = builder.endpoint_url_for(region, elsewhere.as_deref().unwrap_or(&own));
    }
    let kms = builder.build().await?;
    let home = kms.regions().first().cloned().unwrap_or_default();
    if arguments.replicas.contains(&home) {
        return Err(format!("--replica {home} is the region of the key itself; name another").into());
    }
    let admin = KmsAdmin::new(&kms);

    let found = check(&admin, &arguments, alias, &policy, done).await?;
    let kek = match found {
        Some(found) => {
            done.note(format!("key {}", found.kek), Change::Unchanged);
            found.kek
        }
        None => create(&admin, &arguments, alias, &policy, done).await?,
    };
    let is_new = done.made.is_some();
    let change = admin.set_alias(alias, &kek).await?;
    done.note(format!("alias {alias}"), change);
    if let Some(made) = &mut done.made {
        made.is_named = true;
    }
    let change = admin.set_policy(&kek, &policy).await?;
    done.note("policy of the key".to_owned(), change);
    rotate(&admin, &arguments, &kek, is_new, done).await?;
    if !arguments.tags.is_empty() {
        let change = admin.set_tags(&kek, &arguments.tags).await?;
        done.note("tags".to_owned(), change);
    }
    let mut replicas = Vec::new();
    for region in &arguments.replicas {
        let (replica, change) = admin.replicate_kek(&kek, region, Some(&policy)).await?;
        done.note(format!("replica {replica}"), change);
        let change = admin.set_policy(&replica, &policy).await?;
        done.note(format!("policy in {region}"), change);
        let change = admin.set_alias(alias, &replica).await?;
        done.note(format!("alias in {region}"), change);
        replicas.push(replica);
    }
    report(&arguments, alias, &kek, &replicas, done)
}

/// Checks everything that can be checked before the first change, and returns the key if there is one.
async fn check(
    admin: &KmsAdmin,
    arguments: &Arguments,
    alias: &str,
    policy: &KeyPolicy,
    done: &Done,
) -> Result<Option<FoundKek>, Box<dyn Error>> {
    let named = admin.inspect_kek(alias).await?;
    let found = match (&arguments.key, named) {
        (None, named) => named,
        (Some(key), named) => {
            let found = admin.inspect_kek(key.as_str()).await?;
            let found = found.ok_or_else(|| format!("there is no key {key}"))?;
            if let Some(other) = named.filter(|named| named.kek != found.kek) {
                return Err(format!(
                    "`{alias}` stands for {}, and not for {key}: leave out one of the two",
                    other.kek
                )
                .into());
            }
            Some(found)
        }
    };
    let Some(found) = found else {
        // Where the key will be replicated, its alias must be free.
        for region in &arguments.replicas {
            let elsewhere = format!("arn:aws:kms:{region}:{}:{alias}", arguments.account()?);
            refuse_other(admin, &elsewhere, None).await?;
        }
        return Ok(None);
    };
    found.check_usable()?;
    let account = format!(":{}:", arguments.account()?);
    if !found.kek.as_str().contains(&account) {
        return Err(format!("{} is of another account than --account says", found.kek).into());
    }
    if !arguments.replicas.is_empty() && !found.multi_region {
        return Err(format!(
            "{} is a key of one region, which cannot be changed, so --replica is not possible; make a multi-region key under \
             another alias, and move the data keys there with `rewrap`",
            found.kek
        )
        .into());
    }
    let mut keks = vec![&found.kek];
    for region in &arguments.replicas {
        let replica = found.everywhere.get(region);
        keks.extend(replica);
        refuse_other(admin, &alias_arn(alias, &found.kek, Some(region)), replica).await?;
        if let Some(replica) = replica
            && let Some(replica) = admin.inspect_kek(replica.as_str()).await?
        {
            replica.check_usable()?;
        }
    }
    for kek in keks {
        let difference = admin.compare_policy(kek, policy).await?;
        show(&difference, done);
        if !difference.is_empty() && !arguments.replace_policy {
            return Err(format!(
                "the policy of {kek} would change as shown: name all users, every time, or add --replace-policy"
            )
            .into());
        }
    }
    Ok(Some(found))
}

/// Refuses an alias that refers to another key: its users would change keys.
async fn refuse_other(admin: &KmsAdmin, alias: &str, own: Option<&KekId>) -> Result<(), Box<dyn Error>> {
    match admin.find_kek(alias).await? {
        Some(other) if Some(&other) != own => Err(format!(
            "`{alias}` stands for {other}; choose another alias, or move it yourself with `aws kms update-alias`"
        )
        .into()),
        _ => Ok(()),
    }
}

fn show(difference: &PolicyDifference, done: &Done) {
    for line in &difference.lost {
        done.say(&format!("- {line}"));
    }
    for line in &difference.gained {
        done.say(&format!("+ {line}"));
    }
}

async fn create(
    admin: &KmsAdmin,
    arguments: &Arguments,
    alias: &str,
    policy: &KeyPolicy,
    done: &mut Done,
) -> Result<KekId, Box<dyn Error>> {
    let mut new = NewKek::new()
        .description(format!("KEK of encx, {alias}"))
        .tag("encx", "kek")
        .policy(policy.clone());
    for (key, value) in arguments.tags.iter().filter(|(key, _)| key != "encx") {
        new = new.tag(key, value);
    }
    if !arguments.replicas.is_empty() {
        new = new.multi_region();
    }
    let kek = admin.create_kek(&new).await?;
    done.made = Some(Made {
        kek: kek.clone(),
        is_named: false,
        is_rotated: false,
    });
    done.note(format!("key {kek}"), Change::Created);
    Ok(kek)
}

/// Rotates a new key, and an existing one if the command line says so.
async fn rotate(
    admin: &KmsAdmin,
    arguments: &Arguments,
    kek: &KekId,
    is_new: bool,
    done: &mut Done,
) -> Result<(), Box<dyn Error>> {
    let asked = arguments.rotation.or(is_new.then(RotationPeriod::default));
    if let Some(period) = asked {
        let change = admin.rotate_automatically(kek, period).await?;
        done.note("automatic rotation".to_owned(), change);
        if let Some(made) = &mut done.made {
            made.is_rotated = true;
        }
        return Ok(());
    }
    match admin.rotation(kek).await? {
        Some(period) => done.say(&format!("automatic rotation: {period}")),
        None => done.say("automatic rotation is off: --rotation-days 90 switches it on"),
    }
    Ok(())
}

/// Names an alias in the account of a key, in the key's region or another.
fn alias_arn(alias: &str, kek: &KekId, region: Option<&str>) -> String {
    let mut parts: Vec<_> = kek.as_str().splitn(6, ':').collect();
    if let (Some(region), Some(part)) = (region, parts.get_mut(3)) {
        *part = region;
    }
    parts.pop();
    parts.push(alias);
    parts.join(":")
}

fn region_of(kek: &KekId) -> &str {
    kek.as_str().split(':').nth(3).unwrap_or_default()
}

fn key_id(kek: &KekId) -> &str {
    kek.as_str().rsplit('/').next().unwrap_or_default()
}

fn report(
    arguments: &Arguments,
    alias: &str,
    kek: &KekId,
    replicas: &[KekId],
    done: &Done,
) -> Result<(), Box<dyn Error>> {
    let changed = done
        .changes
        .iter()
        .any(|(_, change)| *change != Change::Unchanged);
    if !changed {
        done.say("nothing was changed");
    }
    let all: Vec<_> = std::iter::once(kek).chain(replicas).cloned().collect();
    let identity_policy = arguments.identity_policy(&all)?;
    if arguments.as_json {
        let changes = done.changes.iter();
        let changes = changes.map(|(what, change)| json!({ "what": what, "change": change.to_string() }));
        let replicas = replicas.iter().map(|replica| {
            json!({
                "region": region_of(replica),
                "key_arn": replica.as_str(),
                "alias_arn": alias_arn(alias, replica, None),
            })
        });
        let report = json!({
            "key_id": key_id(kek),
            "key_arn": kek.as_str(),
            "alias_name": alias,
            "alias_arn": alias_arn(alias, kek, None),
            "region": region_of(kek),
            "replicas": replicas.collect::<Vec<_>>(),
            "changed": changed,
            "changes": changes.collect::<Vec<_>>(),
            "encx_env": {
                "AWS_REGION": region_of(kek),
                "AWS_KMS_KEY_ID": kek.as_str(),
                "ENCX_KMS": format!("aws-kms:{kek}"),
            },
            "identity_policy": identity_policy.as_ref().map(encx_aws::policy::IdentityPolicy::to_json),
        });
        println!("{report:#}");
        return Ok(());
    }
    println!("\nkey_id: {}", key_id(kek));
    println!("alias_arn: {}", alias_arn(alias, kek, None));
    println!("For the service: AWS_KMS_KEY_ID={kek}");
    match identity_policy {
        Some(policy) => println!("For its role, as an identity policy:\n{policy}"),
        None => println!("The policy of the key names its users, who need no other."),
    }
    Ok(())
}
