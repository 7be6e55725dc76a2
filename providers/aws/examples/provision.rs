//! Makes all that a service needs from nothing: a KEK with a policy, an alias, automatic rotation, replicas, and prints
//! the identity policy for the service's role. Run again, it changes nothing, and says so.
//!
//! ```sh
//! cargo run -p encx-aws --example provision -- \
//!   --alias alias/shop-pii --account 111122223333 --user arn:aws:iam::111122223333:role/shop --replica eu-west-1
//! ```
//!
//! Needs credentials with `IdentityPolicy::administrator`, and `AWS_REGION`.
#![allow(clippy::print_stdout, reason = "a program that speaks to whoever runs it")]

use std::error::Error;

use encx_aws::AwsKms;
use encx_aws::admin::{Change, KmsAdmin, NewKek, RotationPeriod};
use encx_aws::policy::{IdentityPolicy, KeyPolicy};

#[derive(Default)]
struct Arguments {
    alias: Option<String>,
    account: Option<String>,
    users: Vec<String>,
    administrators: Vec<String>,
    replicas: Vec<String>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut found, mut given) = (Arguments::default(), std::env::args().skip(1));
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match &*name {
            "--alias" => found.alias = Some(value),
            "--account" => found.account = Some(value),
            "--user" => found.users.push(value),
            "--administrator" => found.administrators.push(value),
            "--replica" => found.replicas.push(value),
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok(found)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let alias = arguments.alias.ok_or("--alias alias/… is needed")?;
    let account = arguments.account.ok_or("--account, twelve digits, is needed")?;
    let mut builder = AwsKms::builder();
    // For tests, whose regions are all at one address.
    if let Ok(url) = std::env::var("PROVISION_REPLICA_ENDPOINT") {
        for region in &arguments.replicas {
            builder = builder.endpoint_url_for(region, &url);
        }
    }
    let admin = KmsAdmin::new(&builder.build().await?);
    let mut policy = KeyPolicy::new(&account)?;
    for principal in arguments.users {
        policy = policy.user(principal);
    }
    for principal in arguments.administrators {
        policy = policy.administrator(principal);
    }

    let mut changes = 0;
    let mut say = |what: &str, change: Change| {
        changes += i32::from(change != Change::Unchanged);
        println!("{what}: {change}");
    };
    let kek = match admin.find_kek(&alias).await? {
        Some(kek) => {
            say(&format!("key {kek}"), Change::Unchanged);
            kek
        }
        None => {
            let mut new = NewKek::new()
                .description(format!("KEK of encx, {alias}"))
                .tag("encx", "kek")
                .policy(policy.clone());
            if !arguments.replicas.is_empty() {
                new = new.multi_region();
            }
            let kek = admin.create_kek(&new).await?;
            say(&format!("key {kek}"), Change::Created);
            // At once: until it has a name, nobody finds the key again.
            say(&format!("alias {alias}"), admin.set_alias(&alias, &kek).await?);
            kek
        }
    };
    say("policy of the key", admin.set_policy(&kek, &policy).await?);
    let period = RotationPeriod::default();
    say(
        "automatic rotation",
        admin.rotate_automatically(&kek, period).await?,
    );
    let mut keks = vec![kek.clone()];
    for region in &arguments.replicas {
        let (replica, change) = admin.replicate_kek(&kek, region, Some(&policy)).await?;
        say(&format!("replica {replica}"), change);
        say(
            &format!("policy in {region}"),
            admin.set_policy(&replica, &policy).await?,
        );
        say(
            &format!("alias in {region}"),
            admin.set_alias(&alias, &replica).await?,
        );
        keks.push(replica);
    }
    if changes == 0 {
        println!("nothing was changed");
    }

    println!("\nFor the service: AWS_KMS_KEY_ID={kek}");
    println!(
        "For its role, if the key's policy does not name it:\n{}",
        IdentityPolicy::service(&keks)?
    );
    Ok(())
}
