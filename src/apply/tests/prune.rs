//! What no file names goes where that is asked for, and stays where something needs it.

use super::*;
use crate::{
    clock::Timestamp,
    domain::{
        ids::{Ref, SessionId},
        login::LoginType,
        session::{Role, State},
    },
    store::sessions::{self, Session},
};

impl World {
    async fn prune(&self, text: &str, mode: Mode) -> Result<Vec<Change>, Error> {
        let source = Source {
            name: "data.toml".to_owned(),
            text: text.to_owned().into(),
        };
        let sources = [source];
        self.applier
            .apply(&sources, mode, Rest::Goes, "user root")
            .await
    }

    async fn kept(&self, text: &str) -> Vec<String> {
        match self.prune(text, Mode::Write).await {
            Err(Error::Kept(reasons)) => reasons,
            other => panic!("nothing was kept but {other:?}"),
        }
    }

    async fn exported(&self) -> String {
        let format = export::Format::Toml;
        let files = export::export(&self.store, format).await.unwrap();
        files.iter().map(|file| file.text.to_string()).collect()
    }
}

fn removed(changes: &[Change]) -> Vec<(&str, &str)> {
    let gone = changes.iter().filter(|c| c.action == Action::Removed);
    gone.map(|c| (c.kind, &*c.name)).collect()
}

pub(super) fn session(role: Role, device: &str) -> Session {
    Session {
        role,
        counterpart: ClusterId::new("tokyo").unwrap(),
        id: SessionId::from_bytes(&[7; 16]).unwrap(),
        state: State::Active,
        device: device.parse().unwrap(),
        user_id: Some(UserId::new("ana").unwrap()),
        login_type: LoginType::Uid,
        login_name: "ana".parse().unwrap(),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(7),
        created_at: Timestamp::from_millis(1),
        deadline: None,
        changed_at: Timestamp::from_millis(1),
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    }
}

#[tokio::test]
async fn only_kinds_that_the_files_hold_are_pruned_and_a_users_profiles_go_along() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let bob = "[[user]]\nid = \"bob\"\nself-service-id = \"x\"\n";
    let told = world.prune(bob, Mode::DryRun).await.unwrap();
    assert_eq!(removed(&told), [("user", "ana"), ("profile", "ana-1")]);
    assert_eq!(world.count_users().await, 1);
    assert_eq!(world.prune(bob, Mode::Write).await.unwrap(), told);
    let left = world.exported().await;
    for stays in ["\"bob\"", "SEP1", "tokyo"] {
        assert!(left.contains(stays), "{left}");
    }
    assert!(!left.contains("\"ana"), "{left}");
    assert_eq!(removed(&world.prune(bob, Mode::Write).await.unwrap()), []);
    // Without being asked for, nothing goes.
    let cy = "[[user]]\nid = \"cy\"\n";
    world.apply(cy, Mode::Write).await.unwrap();
    assert_eq!(world.count_users().await, 2);
}

#[tokio::test]
async fn a_file_of_the_whole_prunes_to_the_whole() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let whole = world.exported().await;
    let more = "[[user]]\nid = \"bob\"\n[[device]]\nname = \"SEP2\"\ndevice-pool = \"Bonn\"\n\
                [[device-pool]]\nname = \"Bonn\"\n[[base-device]]\nname = \"X\"\n\
                [[peer]]\nid = \"oslo\"\naddresses = [\"o:1\"]\n[[profile]]\nname = \"b\"\nuser = \"ana\"\n";
    world.apply(more, Mode::Write).await.unwrap();
    let changes = world.prune(&whole, Mode::Write).await.unwrap();
    assert_eq!(removed(&changes).len(), 6, "{changes:?}");
    assert_eq!(world.exported().await, whole);
    // And a CSV file that names its columns only holds none of them.
    let none = Source {
        name: "profiles.csv".to_owned(),
        text: "name,user\n".to_owned().into(),
    };
    let changes = world
        .applier
        .apply(&[none], Mode::Write, Rest::Goes, "user root")
        .await
        .unwrap();
    assert_eq!(removed(&changes), [("profile", "ana-1")]);
}

#[tokio::test]
async fn what_is_in_use_is_kept_and_all_of_it_is_told() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    world
        .store
        .write(|tx: &mut dyn Transaction| {
            sessions::insert(tx, &session(Role::Home, "SEPFAR"))?;
            sessions::insert(tx, &session(Role::Visiting, "sep1"))
        })
        .await
        .unwrap();
    let before = world.exported().await;
    let stays = "[[user]]\nid = \"bob\"\n";
    let told = world.prune(stays, Mode::DryRun).await.unwrap();
    let ana = told.iter().find(|c| c.name == "ana").unwrap();
    let ends: Vec<_> = ana.fields.iter().map(|f| (f.name, &*f.old)).collect();
    assert_eq!(ends, [("session", "SEPFAR of tokyo")]);
    let off = "[[parameter]]\nname = \"end-sessions-on-revocation\"\nvalue = \"off\"\n";
    world.apply(off, Mode::Write).await.unwrap();
    let others = "[[user]]\nid = \"bob\"\n[[device]]\nname = \"SEP2\"\n\
                  [[peer]]\nid = \"oslo\"\naddresses = [\"o:1\"]\n";
    assert_eq!(
        world.kept(others).await,
        [
            "user ana is logged in, and end-sessions-on-revocation is off",
            "device SEP1 has somebody logged in on it",
            "peer tokyo has sessions with us, or is still to be told of ends",
        ]
    );
    let pools = "[[device-pool]]\nname = \"Bonn\"\n";
    assert_eq!(
        world.kept(pools).await,
        ["device-pool Hamburg: profile ana-1 names it"]
    );
    let after = world.exported().await;
    assert_eq!(after.replace(off, "").trim(), before.trim());
    // With it on, the user goes, and the session is left to what ends those of removed users.
    world
        .apply(&off.replace("off", "on"), Mode::Write)
        .await
        .unwrap();
    let gone = world.prune(stays, Mode::Write).await.unwrap();
    assert_eq!(removed(&gone), [("user", "ana"), ("profile", "ana-1")]);
    let revoked = world
        .store
        .read(|tx: &mut dyn Transaction| sessions::revoked(tx, &own(), 9))
        .await
        .unwrap();
    assert_eq!(revoked.len(), 1);
}

/// What somebody adds while the question stands was not asked about.
#[tokio::test]
async fn nothing_goes_that_was_not_agreed_to() {
    let world = world();
    let user = |id: &str| format!("[[user]]\nid = \"{id}\"\n");
    let both = user("ana") + &user("bob");
    world.apply(&both, Mode::Write).await.unwrap();
    let files = [Source {
        name: "data.toml".to_owned(),
        text: user("ana").into(),
    }];
    let trial = world.prune(&user("ana"), Mode::DryRun).await.unwrap();
    let agreed = removals(&trial);
    world.apply(&user("carol"), Mode::Write).await.unwrap();
    let apply = |removals: &str| {
        let (removals, told) = (
            Some(removals.to_owned()),
            watch::Sender::new(Progress::begin()),
        );
        let (applier, files) = (world.applier.clone(), files.clone());
        async move {
            let how = (Mode::Write, Rest::Goes);
            applier
                .apply_agreed(&files, how, removals, "user root", &told)
                .await
        }
    };
    assert!(matches!(apply(&agreed).await, Err(Error::NotAgreed)));
    assert_eq!(world.count_users().await, 3);
    // What changes beside it makes no difference.
    let renamed = "[[user]]\nid = \"ana\"\nname = \"Ana\"\n";
    world.apply(renamed, Mode::Write).await.unwrap();
    let trial = world.prune(&user("ana"), Mode::DryRun).await.unwrap();
    assert_ne!(removals(&trial), agreed);
    world.apply(&user("ana"), Mode::Write).await.unwrap();
    let gone = apply(&removals(&trial)).await.unwrap();
    assert_eq!(removed(&gone), [("user", "bob"), ("user", "carol")]);
    assert_eq!(world.count_users().await, 1);
}

#[tokio::test]
async fn a_row_must_not_name_what_goes() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let text = "[[user]]\nid = \"bob\"\n[[profile]]\nname = \"p\"\nuser = \"ana\"\n";
    let Err(Error::Problems(problems)) = world.prune(text, Mode::Write).await else {
        panic!("a profile of a user who goes was taken");
    };
    assert_eq!(
        problems.told()[0].to_string(),
        "data.toml:3: profile.user: there is no user ana"
    );
}

#[tokio::test]
async fn a_change_tells_its_columns_and_no_pin() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let changed = GOOD
        .replace("extension = \"1001\"", "extension = \"1002\"")
        .replace("246809", "135790")
        .replace("CP-8841", "CP-8851");
    let told = world.apply(&changed, Mode::DryRun).await.unwrap();
    let fields = |kind: &str| -> Vec<_> {
        let of = told
            .iter()
            .filter(|c| c.kind == kind)
            .flat_map(|c| &c.fields);
        of.map(|f| (f.name, &*f.old, &*f.new)).collect()
    };
    let user = [("extension", "1001", "1002"), ("pin", "", "set")];
    assert_eq!(fields("user"), user);
    assert_eq!(fields("device"), [("model", "CP-8841", "CP-8851")]);
    assert!(fields("peer").is_empty());
}

const NAMED: &str = r#"
[[geolocation]]
name = "Altona"
fields = { country = "DE", A3 = "Hamburg" }

[[call-control-group]]
name = "North"
members = [{ host = "cm2", priority = 1 }, { host = "cm1", priority = 0 }]

[[phone-service]]
name = "Menu"
url = "https://canteen.example/today"

[[phone-service]]
name = "News"
url = "https://news.example/"
menu = "messages"

[[device-pool]]
name = "Hamburg"
call-control-group = "North"
location = "Altona"
roaming = true

[[device]]
name = "SEP1"
location = "Altona"
services = ["News"]

[[user]]
id = "ana"

[[profile]]
name = "ana-1"
user = "ana"
device-pool = "Hamburg"
services = ["News", "Menu"]

[[application-user]]
id = "crm"
password = "correct horse"
authentication-proxy = true

[[parameter]]
name = "emcc-geolocation-filter"
value = "country, A3"
"#;

#[tokio::test]
async fn what_others_name_is_kept_and_who_names_it_is_told() {
    let world = world();
    world.apply(NAMED, Mode::Write).await.unwrap();
    let again = world.apply(NAMED, Mode::Write).await.unwrap();
    assert!(
        actions(&again).iter().all(|a| *a == Action::Unchanged),
        "{again:?}"
    );
    let before = world.exported().await;
    assert!(before.contains("password-hash = \"$argon2id$"), "{before}");
    assert!(!before.contains("correct horse"), "{before}");
    for (row, told) in [
        (
            "[[geolocation]]\nname = \"x\"",
            vec![
                "geolocation Altona: device SEP1 names it",
                "geolocation Altona: device-pool Hamburg names it",
            ],
        ),
        (
            "[[call-control-group]]\nname = \"x\"",
            vec!["call-control-group North: device-pool Hamburg names it"],
        ),
        (
            "[[phone-service]]\nname = \"Menu\"\nurl = \"https://canteen.example/today\"",
            vec![
                "phone-service News: device SEP1 names it",
                "phone-service News: profile ana-1 names it",
            ],
        ),
    ] {
        assert_eq!(world.kept(row).await, told, "{row}");
        assert_eq!(world.exported().await, before);
    }
    // Given up by all, it can go.
    let alone = NAMED
        .replace("services = [\"News\"]", "")
        .replace("\"News\", ", "");
    let i = alone.find("[[phone-service]]\nname = \"News\"").unwrap();
    let j = alone.find("[[device-pool]]").unwrap();
    let alone = format!("{}{}", &alone[..i], &alone[j..]);
    let changes = world.prune(&alone, Mode::Write).await.unwrap();
    assert_eq!(removed(&changes), [("phone-service", "News")]);
}

#[tokio::test]
async fn a_parameter_that_no_file_names_has_its_default_again() {
    use crate::store::parameters;
    let world = world();
    world.apply(NAMED, Mode::Write).await.unwrap();
    let all = |tx: &mut dyn Transaction| parameters::all(tx);
    let set = world.store.read(all).await.unwrap();
    let told: Vec<_> = set
        .iter()
        .map(|s| (&*s.name, &*s.value, &*s.set_by))
        .collect();
    assert_eq!(
        told,
        [("emcc-geolocation-filter", "A3,country", "user root")]
    );
    let other = "[[parameter]]\nname = \"allow-proxy\"\nvalue = \"True\"\n";
    let changes = world.prune(other, Mode::Write).await.unwrap();
    assert_eq!(
        removed(&changes),
        [("parameter", "emcc-geolocation-filter")]
    );
    let set = world.store.read(all).await.unwrap();
    let told: Vec<_> = set.iter().map(|s| (&*s.name, &*s.value)).collect();
    assert_eq!(told, [("allow-proxy", "on")]);
}

#[tokio::test]
async fn a_thing_and_its_name_are_not_given_together() {
    let world = world();
    world.apply(NAMED, Mode::Write).await.unwrap();
    for (row, told) in [
        (
            "[[device]]\nname = \"SEP2\"\nlocation = \"Altona\"\ngeolocation = { A3 = \"x\" }",
            "data.toml:1: device.geolocation: give geolocation or location, not both",
        ),
        (
            "[[device-pool]]\nname = \"x\"\ncall-control-group = \"North\"\n\
             call-managers = [{ host = \"h\", priority = 0 }]",
            "data.toml:1: device-pool.call-managers: give call-managers or call-control-group, not both",
        ),
        (
            "[[profile]]\nname = \"x\"\nuser = \"ana\"\nservices = [\"News\", \"News\"]",
            "data.toml:1: profile.services: a service stands in it twice",
        ),
    ] {
        assert_eq!(world.problems(row).await, [told], "{row}");
    }
}
