//! Guessing PINs: however many try at once and from wherever, no more guesses are judged than the lock-out allows,
//! and the answers do not tell a wrong PIN from a locked or a disabled user.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use emccd::{
    domain::{em_code::EmCode, session::Role},
    lab::{
        Cluster, Hosting, Lab, Spec,
        dataset::User,
        member::{Member, Versions},
        phone::Shown,
    },
    wire::admin::{GetUserRequest, PinState},
};
use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    binary,
    raw_peer::{self, call, peer_client},
    rows::{rows, tamper},
    set_parameter,
};

const HOME: usize = 0;
const VISITING: usize = 1;
/// How many guess at once; a phone each.
const GUESSERS: usize = 256;
/// How many wrong PINs lock a user.
const LIMIT: usize = 4;
const PIN: &str = "271828";

/// Users by what becomes of them. All have the same PIN, but `bare`, who has none.
const USERS: [&str; 6] = ["ana", "bob", "eva", "off", "bare", "new"];

/// Two clusters with a user for each purpose and a phone for each guesser.
async fn start(settings: &[(&str, &str)]) -> Lab {
    start_as(Hosting::InProcess, settings).await
}

async fn start_as(hosting: Hosting, settings: &[(&str, &str)]) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    for (number, cluster) in ["berlin", "tokyo"].into_iter().enumerate() {
        let mut toml = format!("[[policy]]\nname = \"guarded\"\nfailures-before-lock = {LIMIT}\n");
        for user in USERS {
            writeln!(
                toml,
                "[[user]]\nid = \"{user}.{cluster}\"\nenabled = {}",
                user != "off"
            )
            .unwrap();
            writeln!(toml, "policy = \"guarded\"").unwrap();
            if user != "bare" {
                writeln!(toml, "pin = \"{PIN}\"").unwrap();
            }
            writeln!(
                toml,
                "[[profile]]\nname = \"{user}-{cluster}\"\nuser = \"{user}.{cluster}\""
            )
            .unwrap();
        }
        for phone in 0..GUESSERS {
            writeln!(
                toml,
                "[[device]]\nname = \"SEP{number:04X}{phone:08X}\"\nmodel = \"CP-8841\""
            )
            .unwrap();
        }
        writeln!(toml, "[[base-device]]\nname = \"EMCC\"\ncount = 4").unwrap();
        std::fs::write(folder.path().join(format!("{cluster}.toml")), toml).unwrap();
    }
    // 256 handshakes of a debug build take their time; this is about counting, not about haste.
    let own = [
        ("login", "deadline = \"25s\""),
        ("login", "find-deadline = \"20s\""),
    ];
    let settings = own.iter().chain(settings);
    let settings = settings
        .map(|(section, line)| ((*section).to_owned(), (*line).to_owned()))
        .collect();
    Lab::start(&Spec {
        hosting,
        data: Some(folder.path().to_owned()),
        settings,
        ..Spec::default()
    })
    .await
    .unwrap()
}

/// A user of a cluster, and the PIN to try.
fn user(cluster: &Cluster, name: &str, pin: &str) -> User {
    User {
        user_id: format!("{name}.{}", cluster.id),
        self_service_id: None,
        primary_extension: None,
        pin: pin.to_owned(),
        profiles: Vec::new(),
    }
}

/// Never the right one, and never the same twice.
fn wrong(number: usize) -> String {
    format!("9{number:05}")
}

async fn pin_state(home: &Cluster, user: &User) -> PinState {
    let request = GetUserRequest {
        user_id: user.user_id.clone(),
    };
    home.admin()
        .await
        .unwrap()
        .user(request)
        .await
        .unwrap()
        .pin
        .unwrap()
}

/// How many guesses were judged, by the audit; the others were turned away by the lock.
async fn judged(home: &Cluster, user: &User) -> usize {
    let start = format!("wrong PIN for user {} ", user.user_id);
    rows(home)
        .await
        .audit
        .iter()
        .filter(|entry| entry.outcome.starts_with(&start))
        .count()
}

/// The answers of home to guesses of a peer, all at once over a few connections.
async fn guess_as_peer(lab: &Lab, guesses: &[User]) -> Vec<Status> {
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let clients: Vec<_> = (0..4).map(|_| peer_client(visiting, home)).collect();
    join_all(guesses.iter().enumerate().map(|(n, guess)| {
        let login = raw_peer::login(raw_peer::new_id(), guess, &format!("SEPFFFF{n:08X}"));
        let (mut client, request) = (clients[n % clients.len()].clone(), call(visiting, login));
        async move {
            client
                .login(request)
                .await
                .expect_err("no guess may succeed")
        }
    }))
    .await
}

/// What phones of a cluster show for guesses, all at once, one phone each.
async fn guess_on_phones(cluster: &Cluster, guesses: &[User]) -> Vec<Shown> {
    let phone = cluster.member().unwrap().phone().unwrap();
    join_all(guesses.iter().enumerate().map(|(n, guess)| {
        let (phone, device) = (phone.clone(), cluster.data.phone(n).unwrap().name.clone());
        async move {
            phone
                .login_at_once(&device, None, &guess.user_id, &guess.pin)
                .await
                .unwrap()
        }
    }))
    .await
}

/// Everything of a status but the ref, which is of one length.
fn told(status: &Status) -> (Code, String, BTreeSet<(String, String)>, usize) {
    let info = status.get_details_error_info().unwrap();
    let reference = info.metadata.get("ref").expect("a ref");
    assert_eq!(reference.len(), 8);
    let rest = info
        .metadata
        .clone()
        .into_iter()
        .filter(|(key, _)| key != "ref")
        .collect();
    (
        status.code(),
        status.message().to_owned(),
        rest,
        status.details().len(),
    )
}

/// Everything of a page but the ref and the phone's own name.
fn page(shown: &Shown, device: &str) -> String {
    let reference = shown.reference.as_ref().expect("a ref");
    assert_eq!(reference.len(), 9);
    shown
        .body
        .replace(reference, "REF")
        .replace(device, "DEVICE")
}

/// All guesses used up at once: exactly the limit was judged, the row says so, and the right PIN is refused too.
async fn is_locked(lab: &Lab, name: &str) {
    let home = &lab.clusters[HOME];
    let target = user(home, name, PIN);
    assert_eq!(judged(home, &target).await, LIMIT);
    let state = pin_state(home, &target).await;
    assert_eq!(usize::try_from(state.failures).unwrap(), LIMIT);
    assert!(state.locked_until.is_some(), "{state:?}");
    let right = guess_as_peer(lab, &vec![target.clone(); 16]).await;
    for status in &right {
        assert_eq!(
            raw_peer::refusal(status, home).code,
            EmCode::EmccAuthenticationError
        );
    }
    let shown = guess_on_phones(&lab.clusters[VISITING], &vec![target.clone(); 16]).await;
    assert!(shown.iter().all(|s| s.em_code == Some(2)), "{shown:?}");
    assert_eq!(
        judged(home, &target).await,
        LIMIT,
        "while locked nothing is judged"
    );
    let rows = rows(home).await;
    rows.hold_invariants();
    assert!(
        rows.sessions.iter().all(|s| s.role != Role::Home),
        "nobody got in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guesses_of_a_peer_at_once_are_no_more_than_the_limit() {
    let mut lab = start(&[]).await;
    let home = &lab.clusters[HOME];
    assert_eq!(pin_state(home, &user(home, "ana", PIN)).await.failures, 0);
    let guesses: Vec<_> = (0..GUESSERS)
        .map(|n| user(home, "ana", &wrong(n)))
        .collect();
    let answers = guess_as_peer(&lab, &guesses).await;
    for answer in &answers {
        assert_eq!(told(answer), told(&answers[0]));
        assert_eq!(
            raw_peer::refusal(answer, home).code,
            EmCode::EmccAuthenticationError,
            "{answer:?}"
        );
    }
    is_locked(&lab, "ana").await;

    // Neither a restart nor another user changes that.
    let member = lab.clusters[HOME].member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::default()).await.unwrap();
    is_locked(&lab, "ana").await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let login = raw_peer::login(
        raw_peer::new_id(),
        &user(home, "eva", PIN),
        "SEPFFFFFFFFFFFF",
    );
    peer_client(visiting, home)
        .login(call(visiting, login))
        .await
        .unwrap();
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guesses_on_phones_at_once_are_no_more_than_the_limit() {
    let lab = start(&[]).await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let guesses: Vec<_> = (0..GUESSERS)
        .map(|n| user(home, "ana", &wrong(n)))
        .collect();
    let pages = guess_on_phones(visiting, &guesses).await;
    let first = page(&pages[0], &visiting.data.phone(0).unwrap().name);
    for (n, shown) in pages.iter().enumerate() {
        assert_eq!(shown.em_code, Some(2), "{}", shown.text);
        assert_eq!(shown.body.len(), pages[0].body.len());
        assert_eq!(page(shown, &visiting.data.phone(n).unwrap().name), first);
    }
    is_locked(&lab, "ana").await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_from_a_peer_foreign_phones_and_own_phones_are_counted_together() {
    let lab = start(&[]).await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let guesses = |from: usize| -> Vec<_> {
        (from..from + 85)
            .map(|n| user(home, "ana", &wrong(n)))
            .collect()
    };
    let (at_peer, at_visiting, at_home) = (guesses(0), guesses(100), guesses(200));
    let (_, foreign, own) = tokio::join!(
        guess_as_peer(&lab, &at_peer),
        guess_on_phones(visiting, &at_visiting),
        guess_on_phones(home, &at_home)
    );
    assert!(foreign.iter().all(|shown| shown.em_code == Some(2)));
    assert!(own.iter().all(|shown| shown.em_code == Some(201)));
    is_locked(&lab, "ana").await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_a_locked_and_a_disabled_user_read_alike_and_an_unknown_one_is_23() {
    let lab = start(&[]).await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let lock: Vec<_> = (0..LIMIT).map(|n| user(home, "bob", &wrong(n))).collect();
    guess_as_peer(&lab, &lock).await;
    assert!(
        pin_state(home, &user(home, "bob", PIN))
            .await
            .locked_until
            .is_some()
    );

    let alike = [
        ("ana", "0"),
        ("bob", PIN),
        ("bob", "0"),
        ("off", PIN),
        ("off", "0"),
        ("bare", "0"),
    ];
    let guesses = alike.map(|(name, pin)| user(home, name, pin));
    let mut answers = guess_as_peer(&lab, &guesses).await;
    // One phone for all of them: its name stands in the page.
    for (cluster, code) in [(visiting, 2), (home, 201)] {
        let device = &cluster.data.phone(0).unwrap().name;
        let mut pages = Vec::new();
        for guess in &guesses {
            pages.extend(guess_on_phones(cluster, std::slice::from_ref(guess)).await);
        }
        for (shown, (name, _)) in pages.iter().zip(alike) {
            assert_eq!(shown.em_code, Some(code), "{name}: {}", shown.text);
            assert_eq!(shown.body.len(), pages[0].body.len(), "{name}");
            assert_eq!(page(shown, device), page(&pages[0], device), "{name}");
        }
        let unknown = guess_on_phones(cluster, &[user(home, "nobody", PIN)]).await;
        assert_eq!(unknown[0].em_code, Some(23), "{}", unknown[0].text);
    }
    let first = answers.remove(0);
    assert_eq!(first.code(), Code::Unauthenticated);
    for (answer, (name, _)) in answers.iter().zip(alike.iter().skip(1)) {
        assert_eq!(told(answer), told(&first), "{name}");
    }
    // Asked for, who is nobody looks like a user of the phone's own cluster, or of the one that is named.
    for cluster in [home, visiting] {
        set_parameter(cluster, "unknown-user-answer", "as-wrong-pin").await;
        let device = &cluster.data.phone(0).unwrap().name;
        let local = guess_on_phones(cluster, &[user(cluster, "off", PIN)]).await;
        let nobody = guess_on_phones(cluster, &[user(home, "nobody", PIN)]).await;
        assert_eq!(nobody[0].em_code, Some(201), "{}", nobody[0].text);
        assert_eq!(nobody[0].body.len(), local[0].body.len());
        assert_eq!(page(&nobody[0], device), page(&local[0], device));
    }
    let device = &visiting.data.phone(0).unwrap().name;
    let remote = guess_on_phones(visiting, &[user(home, "off", PIN)]).await;
    let named = User {
        user_id: format!("nobody@{}", home.id),
        ..user(home, "nobody", PIN)
    };
    let nobody = guess_on_phones(visiting, &[named]).await;
    assert_eq!(nobody[0].em_code, Some(2), "{}", nobody[0].text);
    assert_eq!(page(&nobody[0], device), page(&remote[0], device));
    // On a phone that is lent to no other cluster both read alike too.
    let line = format!("device set {device} --emcc false");
    crate::people::done(visiting, &line, "").await;
    let [bob, nobody] = ["bob", "nobody"].map(|name| User {
        user_id: format!("{name}@{}", home.id),
        ..user(home, name, PIN)
    });
    let there = guess_on_phones(visiting, &[bob]).await;
    assert_eq!(there[0].em_code, Some(213), "{}", there[0].text);
    let nobody = guess_on_phones(visiting, &[nobody]).await;
    assert_eq!(page(&nobody[0], device), page(&there[0], device));
    // Those who look after the cluster see what it was, and other clusters are told as ever.
    let told_so = "no user here has that name; answered as a wrong PIN";
    let audit = rows(home).await.audit;
    assert!(audit.iter().any(|entry| entry.outcome.contains(told_so)));
    let unknown = guess_as_peer(&lab, &[user(home, "nobody", PIN)]).await;
    assert_eq!(unknown[0].code(), Code::NotFound);
    assert_eq!(
        raw_peer::refusal(&unknown[0], home).code,
        EmCode::UserDoesNotExist
    );
    lab.shut_down().await;
}

/// Whose wrong PINs are timed, each until one more would lock. All of them have the same PIN.
const UNLOCKED: [&str; 3] = ["ana", "eva", "new"];
/// How often each is timed at most; the shortest counts, since what else the machine does only adds to it.
const ROUNDS: usize = UNLOCKED.len() * (LIMIT - 1);

/// How long a node's process has had a processor: unlike what a clock shows, that does not depend on who else wants
/// one.
fn worked(node: &Member) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid().unwrap())).unwrap();
    // The name before them may have spaces in it. Linux tells user and system time in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn is_close(time: Duration, wrong: Duration) -> bool {
    time > wrong * 2 / 3 && time < wrong * 3 / 2
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_a_locked_and_a_disabled_user_and_one_without_a_pin_take_the_same_time() {
    // A hash so long that everything else is small beside it: who is answered without one stands out.
    let hosting = Hosting::Processes { binary: binary() };
    let lab = start_as(
        hosting,
        &[
            ("credentials", "memory-kib = 32768"),
            ("credentials", "iterations = 6"),
        ],
    )
    .await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let lock: Vec<_> = (0..LIMIT).map(|n| user(home, "bob", &wrong(n))).collect();
    guess_as_peer(&lab, &lock).await;
    let alike = [("bob", PIN), ("bob", "0"), ("off", PIN), ("bare", "0")];
    let mut client = peer_client(visiting, home);
    let mut time = async |name: &str, pin: &str| {
        let guess = user(home, name, pin);
        let login = raw_peer::login(raw_peer::new_id(), &guess, "SEPFFFF00000000");
        let before = worked(home.member().unwrap());
        let refused = client.login(call(visiting, login)).await;
        let took = worked(home.member().unwrap()) - before;
        (took, refused.expect_err("no guess may succeed"))
    };
    // An unknown user needs no hash: what is seen there is the way to home and back.
    let (mut wrong, mut took, mut unknown) = (Duration::MAX, [Duration::MAX; 4], Duration::MAX);
    for round in 0..ROUNDS {
        let (cost, refused) = time(UNLOCKED[round / (LIMIT - 1)], "0").await;
        assert_eq!(refused.code(), Code::Unauthenticated);
        wrong = cost.min(wrong);
        for (shortest, (name, pin)) in took.iter_mut().zip(alike) {
            let (cost, refused) = time(name, pin).await;
            assert_eq!(refused.code(), Code::Unauthenticated, "{name}");
            *shortest = cost.min(*shortest);
        }
        let (cost, refused) = time("nobody", PIN).await;
        assert_eq!(refused.code(), Code::NotFound);
        unknown = cost.min(unknown);
        // On a busy machine it may take some rounds until nothing else of the node falls into one.
        if unknown < wrong / 3 && took.iter().all(|shortest| is_close(*shortest, wrong)) {
            break;
        }
    }
    assert!(
        unknown < wrong / 3,
        "the hash is too short to tell anything: {unknown:?} of {wrong:?}"
    );
    for (shortest, (name, pin)) in took.iter().zip(alike) {
        let right = if pin == PIN { "the right" } else { "a wrong" };
        assert!(
            is_close(*shortest, wrong),
            "{name} with {right} PIN took {shortest:?}, a wrong PIN {wrong:?}"
        );
    }
    // Where it is not told that there is no such user, it takes as long, too.
    set_parameter(home, "unknown-user-answer", "as-wrong-pin").await;
    let (phone, device) = (
        home.member().unwrap().phone().unwrap(),
        &home.data.phone(0).unwrap().name,
    );
    let mut hidden = Duration::MAX;
    for _ in 0..ROUNDS {
        let before = worked(home.member().unwrap());
        let shown = phone
            .login_at_once(device, None, "nobody", PIN)
            .await
            .unwrap();
        assert_eq!(shown.em_code, Some(201), "{}", shown.text);
        hidden = hidden.min(worked(home.member().unwrap()) - before);
        if is_close(hidden, wrong) {
            break;
        }
    }
    assert!(
        is_close(hidden, wrong),
        "a hidden user took {hidden:?}, a wrong PIN {wrong:?}"
    );
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_pin_forgives_and_a_lock_ends() {
    let lab = start(&[]).await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let (phone, device) = (
        visiting.member().unwrap().phone().unwrap(),
        &visiting.data.phone(0).unwrap().name,
    );
    let new = user(home, "new", PIN);
    let wrongs =
        |count: usize| -> Vec<_> { (0..count).map(|n| user(home, "new", &wrong(n))).collect() };
    let in_and_out = async || {
        let shown = phone
            .login_at_once(device, None, &new.user_id, &new.pin)
            .await
            .unwrap();
        if shown.em_code.is_none() {
            phone.logout(device).await.unwrap();
        }
        shown.em_code
    };
    guess_as_peer(&lab, &wrongs(LIMIT - 1)).await;
    assert_eq!(
        usize::try_from(pin_state(home, &new).await.failures).unwrap(),
        LIMIT - 1
    );
    assert_eq!(in_and_out().await, None);
    let state = pin_state(home, &new).await;
    assert_eq!((state.failures, state.locked_until), (0, None));

    guess_as_peer(&lab, &wrongs(LIMIT)).await;
    assert_eq!(in_and_out().await, Some(2));
    // In the cluster's own time: a wall clock has no say in it.
    let (early, over) = (
        "UPDATE cluster_time SET at = at + 13 * 60 * 1000",
        "UPDATE cluster_time SET at = at + 3 * 60 * 1000",
    );
    tamper(home, early).await;
    assert_eq!(in_and_out().await, Some(2), "it lasts a quarter of an hour");
    tamper(home, over).await;
    assert_eq!(in_and_out().await, None);
    lab.shut_down().await;
}
