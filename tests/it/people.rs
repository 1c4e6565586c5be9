//! Users and phones changed one at a time with the program, as an operator types it, and what phones then get.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use emccd::{
    lab::{Cluster, Lab, Spec, member::Versions},
    wire::admin as pb,
};

use crate::support::binary;

/// Runs a command against the cluster's first node; whether it ended with 0, and all it printed.
fn type_in(cluster: &Cluster, line: &[&str], input: &str) -> (bool, String) {
    let socket = &cluster.member().unwrap().addresses.admin;
    let mut child = Command::new(binary())
        .arg("--socket")
        .arg(socket)
        .args(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

async fn operator(cluster: &Cluster, line: &str, input: &str) -> (bool, String) {
    let words: Vec<_> = line.split_whitespace().collect();
    tokio::task::block_in_place(|| type_in(cluster, &words, input))
}

pub(crate) async fn done(cluster: &Cluster, line: &str, input: &str) -> String {
    let (done, said) = operator(cluster, line, input).await;
    assert!(done, "{line}\n{said}");
    said
}

async fn refused(cluster: &Cluster, line: &str) -> String {
    let (done, said) = operator(cluster, line, "").await;
    assert!(!done, "{line}\n{said}");
    said
}

/// What a policy asks of PINs and how it locks, as an operator sets it.
async fn policies_by_command(cluster: &Cluster) {
    let phone = cluster.member().unwrap().phone().unwrap();
    let trivial = operator(cluster, "user set zoe --ask-pin", "1234\n").await;
    assert!(
        !trivial.0
            && trivial.1.contains("the policy default refuses it")
            && trivial
                .1
                .contains("at least 6 digits (too_short); it must not count up or down (sequence)")
            && !trivial.1.contains("1234"),
        "{}",
        trivial.1
    );
    let line = "policy add kiosk --min-length 4 --failures-before-lock 1 --trivial-check false";
    done(cluster, line, "").await;
    let all = done(cluster, "policy list", "").await;
    assert!(all.contains("default") && all.contains("kiosk"), "{all}");
    done(cluster, "user set zoe --policy kiosk", "").await;
    done(cluster, "user set zoe --ask-pin", "1234\n").await;
    let shown = done(cluster, "user show zoe", "").await;
    assert!(shown.contains("kiosk"), "{shown}");
    let enter = async |pin| {
        let entered = phone.login_at_once("SEPZOE", None, "zoe", pin).await;
        entered.unwrap().em_code
    };
    // One wrong PIN locks; the right one is refused then. It is no new one, and an operator unlocks it.
    assert_eq!(enter("9999").await, Some(201));
    assert_eq!(enter("1234").await, Some(201));
    let same = done(cluster, "user set zoe --ask-pin", "1234\n").await;
    assert!(same.contains("emccd pin unlock zoe"), "{same}");
    assert_eq!(enter("1234").await, Some(201));
    let unlocked = done(cluster, "pin unlock zoe", "").await;
    assert!(
        unlocked.contains("unlocked zoe, who was locked until "),
        "{unlocked}"
    );
    let again = done(cluster, "pin unlock zoe", "").await;
    assert!(again.contains("user zoe is not locked"), "{again}");
    let nobody = refused(cluster, "pin unlock nobody").await;
    assert!(nobody.contains("there is no user nobody"), "{nobody}");
    assert_eq!(enter("1234").await, None);
    phone.logout("SEPZOE").await.unwrap();
    // A new one unlocks as well.
    assert_eq!(enter("9999").await, Some(201));
    assert_eq!(enter("1234").await, Some(201));
    done(cluster, "policy set kiosk --failures-before-lock 0", "").await;
    done(cluster, "user set zoe --ask-pin", "4321\n").await;
    for _ in 0..7 {
        assert_eq!(enter("9999").await, Some(201));
    }
    assert_eq!(enter("4321").await, None);
    phone.logout("SEPZOE").await.unwrap();
    let used = refused(cluster, "policy remove kiosk --yes").await;
    assert!(used.contains("1 users have it; the first is zoe"), "{used}");
    let kept = refused(cluster, "policy remove default --yes").await;
    assert!(kept.contains("policy set default"), "{kept}");
    let none = refused(cluster, "policy show nowhere").await;
    assert!(none.contains("there is no policy nowhere"), "{none}");
    let wrong = refused(cluster, "policy set kiosk --lock-duration 0").await;
    assert!(
        wrong.contains("lock-duration: it must be 1 to 1440"),
        "{wrong}"
    );
    done(cluster, "user set zoe --policy= --ask-pin", "739150\n").await;
    done(cluster, "policy remove kiosk --yes", "").await;
    for (action, what) in [
        ("pin.unlock", "was locked until"),
        ("session.login", "(1 counted; locked until"),
        ("policy.add", "kiosk"),
        ("policy.set", "failures-before-lock = 0"),
        ("policy.remove", "kiosk"),
    ] {
        let found = done(cluster, &format!("audit list --action {action}"), "").await;
        assert!(found.contains(what), "{action}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_phone_are_made_used_changed_and_removed_by_command() {
    let lab = Lab::start(&Spec {
        clusters: 1,
        ..Spec::default()
    })
    .await
    .unwrap();
    let cluster = &lab.clusters[0];
    let phone = cluster.member().unwrap().phone().unwrap();

    done(cluster, "user add zoe --name Zoe --ask-pin", "739150\n").await;
    done(
        cluster,
        "profile add zoe-desk --user zoe --default true --line 4799=Zoe",
        "",
    )
    .await;
    done(
        cluster,
        "device add SEPZOE --model 8845 --geolocation country=DE",
        "",
    )
    .await;
    policies_by_command(cluster).await;
    let again = refused(cluster, "user add ZOE").await;
    assert!(again.contains("exists already"), "{again}");
    let nobody = refused(cluster, "user set nobody --enabled false").await;
    assert!(nobody.contains("there is no user nobody"), "{nobody}");
    let odd = refused(cluster, "profile add odd --user nobody").await;
    assert!(
        odd.contains("--user: there is no user nobody; nothing was changed"),
        "{odd}"
    );
    let odd = refused(cluster, "profile set zoe-desk --line =Desk").await;
    assert!(odd.contains("--line: it must not be empty"), "{odd}");
    let odd = refused(cluster, "profile set zoe-desk --default maybe").await;
    assert!(odd.contains("maybe"), "{odd}");
    let odd = refused(cluster, "device add SEPODD --device-pool nosuch").await;
    assert!(
        odd.contains("--device-pool: there is no device pool nosuch") && !odd.contains("line"),
        "{odd}"
    );
    assert!(again.contains("emccd user set ZOE"), "{again}");
    let again = refused(cluster, "profile add zoe-desk --user zoe").await;
    assert!(again.contains("emccd profile set zoe-desk"), "{again}");
    done(cluster, "profile set zoe-desk --line 4799=Desk", "").await;
    let changed = done(cluster, "profile show zoe-desk", "").await;
    assert!(
        changed.contains("4799 Desk") && changed.contains("zoe"),
        "{changed}"
    );

    // What is given empty is taken away.
    let pool = cluster.id.to_string();
    done(
        cluster,
        &format!("profile set zoe-desk --device-pool {pool} --locale de_DE"),
        "",
    )
    .await;
    let with = done(cluster, "profile show zoe-desk", "").await;
    assert!(with.contains(&pool) && with.contains("de_DE"), "{with}");
    done(cluster, "profile set zoe-desk --device-pool= --locale=", "").await;
    let without = done(cluster, "profile show zoe-desk", "").await;
    assert!(
        !without.contains(&pool) && !without.contains("de_DE") && without.contains("4799 Desk"),
        "{without}"
    );
    let place = format!("device set SEPZOE --device-pool {pool} --locale de_DE");
    done(cluster, &place, "").await;
    let with = done(cluster, "device show SEPZOE", "").await;
    assert!(with.contains(&pool) && with.contains("de_DE"), "{with}");
    done(
        cluster,
        "device set SEPZOE --device-pool= --locale= --geolocation= --service=",
        "",
    )
    .await;
    let bare = done(cluster, "device show SEPZOE", "").await;
    assert!(
        !bare.contains(&pool) && !bare.contains("de_DE") && !bare.contains("country"),
        "{bare}"
    );
    done(cluster, "device set SEPZOE --geolocation country=DE", "").await;

    let shown = phone
        .login_at_once("SEPZOE", None, "zoe", "739150")
        .await
        .unwrap();
    assert!(shown.em_code.is_none(), "{shown:?}");
    // What still carries the session stays.
    for line in ["user remove zoe --yes", "device remove SEPZOE --yes"] {
        let told = refused(cluster, line).await;
        assert!(told.contains("--end-sessions"), "{told}");
    }
    phone.logout("SEPZOE").await.unwrap();

    // A change of one thing leaves the others: the name, the profile, the PIN.
    done(cluster, "user set zoe --extension 4799", "").await;
    let all = done(cluster, "user show zoe", "").await;
    assert!(
        all.contains("Zoe") && all.contains("4799") && all.contains("zoe-desk"),
        "{all}"
    );
    let same = done(cluster, "user set zoe --extension 4799", "").await;
    assert!(same.contains("is so already"), "{same}");
    done(cluster, "device set SEPZOE --extension-mobility false", "").await;
    let off = phone
        .login_at_once("SEPZOE", None, "zoe", "739150")
        .await
        .unwrap();
    assert_eq!(off.em_code, Some(22));
    done(cluster, "device set SEPZOE --extension-mobility true", "").await;
    done(cluster, "user set zoe --ask-pin", "864209\n").await;
    let old = phone
        .login_at_once("SEPZOE", None, "zoe", "739150")
        .await
        .unwrap();
    assert_eq!(old.em_code, Some(201));
    let new = phone
        .login_at_once("SEPZOE", None, "zoe", "864209")
        .await
        .unwrap();
    assert!(new.em_code.is_none(), "{new:?}");
    phone.logout("SEPZOE").await.unwrap();

    done(cluster, "base add SPARE --count 3", "").await;
    done(cluster, "base remove SPARE2 --yes", "").await;
    let more = done(cluster, "base add SPARE --count 3", "").await;
    assert!(more.contains("added 1 of 3 base devices"), "{more}");
    done(cluster, "base remove SPARE2 --yes", "").await;
    let pool = done(cluster, "base list", "").await;
    assert!(
        pool.contains("SPARE3") && !pool.contains("SPARE2"),
        "{pool}"
    );
    let unsure = refused(cluster, "user remove zoe").await;
    assert!(unsure.contains("add --yes"), "{unsure}");
    // Asked for, the session ends with the user, on both sides, and the phone is free.
    let on = phone
        .login_at_once("SEPZOE", None, "zoe", "864209")
        .await
        .unwrap();
    assert!(on.em_code.is_none(), "{on:?}");
    done(cluster, "user remove zoe --yes --end-sessions", "").await;
    done(cluster, "device remove SEPZOE --yes", "").await;
    let gone = refused(cluster, "profile show zoe-desk").await;
    assert!(gone.contains("no profile zoe-desk"), "{gone}");
    // Who did it is on record, and no PIN is.
    let audit = done(cluster, "audit list --limit 1000", "").await;
    assert!(
        audit.contains("user.remove") && audit.contains("zoe-desk"),
        "{audit}"
    );
    for (action, what) in [
        ("user.add", "zoe"),
        ("user.set", "PIN set"),
        ("device.set", "SEPZOE"),
        ("profile.add", "zoe-desk"),
        ("base.add", "SPARE3"),
        ("base.remove", "SPARE2"),
        ("session.login", "phone SEPZOE"),
        ("session.logout", "phone SEPZOE"),
    ] {
        let line = format!("audit list --limit 1000 --action {action}");
        let found = done(cluster, &line, "").await;
        assert!(found.contains(what), "{action}: {found}");
    }
    assert!(
        !audit.contains("739150") && !audit.contains("864209"),
        "{audit}"
    );
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_removed_after_it_was_told_that_its_sessions_are_over() {
    let mut lab = crate::support::lab(2).await;
    let here = &lab.clusters[0];
    let up = done(here, "cluster refresh tokyo", "").await;
    assert!(up.contains("the link to tokyo is up"), "{up}");
    let none = refused(here, "cluster refresh lima").await;
    assert!(none.contains("no peer lima"), "{none}");

    let shown = crate::support::log_in(&lab, 0, 0, 1, 0).await;
    assert!(shown.em_code.is_none(), "{shown:?}");
    // Nobody could tell it: nothing ends, and nobody is barred.
    let tokyo = lab.clusters[1].id.clone();
    lab.clusters[1].member_mut().unwrap().stop().await;
    let here = &lab.clusters[0];
    let down = |peer: &pb::PeerStatus| peer.outbound.as_ref().is_some_and(|o| o.state != "up");
    here.wait_status(&tokyo, "down", down).await.unwrap();
    let stays = refused(here, "cluster remove tokyo --yes").await;
    assert!(
        stays.contains("nothing was ended") && stays.contains("--forget-owed"),
        "{stays}"
    );
    let living = done(here, "session list", "").await;
    assert!(living.contains("tokyo"), "{living}");
    let member = lab.clusters[1].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    here.wait_linked(&there.id).await.unwrap();
    there.wait_linked(&here.id).await.unwrap();
    let shown = crate::support::log_in(&lab, 0, 1, 1, 1).await;
    assert!(shown.em_code.is_none(), "{shown:?}");

    let shown = crate::support::log_in(&lab, 1, 0, 0, 0).await;
    assert!(shown.em_code.is_none(), "{shown:?}");

    // What it shares with us ends, of our users and of its own, and it is told, before it goes.
    let removed = done(here, "cluster remove tokyo --yes", "").await;
    assert!(
        removed.contains("removed the peer tokyo and 1 certificate"),
        "{removed}"
    );
    let phone = &there.data.devices[0].name;
    let free = done(there, &format!("session list --device {phone}"), "").await;
    assert!(free.contains("no sessions"), "{free}");
    let none = done(there, "session list", "").await;
    assert!(none.contains("no sessions"), "{none}");
    let held = there.admin().await.unwrap().held().await.unwrap();
    assert!(held.is_empty(), "{held:?}");
    let left = done(here, "trust list", "").await;
    assert!(left.contains("nothing is trusted"), "{left}");
    let status = done(here, "cluster status", "").await;
    assert!(
        !status.contains("tokyo") || !status.contains(" up "),
        "{status}"
    );
    lab.shut_down().await;
}
