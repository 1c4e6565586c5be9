//! Data that nobody would think of: what is exported makes the same again, and a broken row is named and stops all.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    apply::export::{Exported, Format, export},
    clock::Timestamp,
    domain::{
        announcement::Acceptance,
        ids::{
            ApplicationId, BaseDeviceName, CallGroupName, DeviceName, DevicePoolName,
            GeolocationName, LoginName, PolicyName, ProfileName, ServiceName,
        },
        login::{CallManager, Line, PhoneService, SecurityMode, ServiceMenu},
        policy::{Policy, Rules},
    },
    store::{
        applications::{self, Application},
        call_groups::{self, CallGroup},
        credentials::Phc,
        devices::{self, Device},
        geolocations::{self, Geolocation},
        parameters::{self, Setting},
        peers::{self, Peer},
        phone_services, policies,
        pools::{self, DevicePool},
        profiles::{self, Profile},
        users::User,
    },
};

/// What a cluster holds.
#[derive(Clone, Debug)]
struct Data {
    geolocations: Vec<Geolocation>,
    call_groups: Vec<CallGroup>,
    services: Vec<PhoneService>,
    applications: Vec<(Application, bool)>,
    settings: Vec<Setting>,
    pools: Vec<DevicePool>,
    policies: Vec<Policy>,
    users: Vec<(User, bool)>,
    profiles: Vec<Profile>,
    devices: Vec<Device>,
    base_devices: Vec<BaseDeviceName>,
    peers: Vec<Peer>,
}

/// One line with everything in it that either format has to take care of.
fn line() -> impl Strategy<Value = String> {
    "[-a-zA-Z0-9 ,;|=\\\\\"'#\\[\\]{}\u{e9}\u{20ac}]{0,8}"
}

/// The same as a name: not blank at its ends, and unlike all others by its number.
fn name(text: &str, number: usize) -> String {
    format!("{}{number}", text.trim_start())
}

fn locale() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-z]{2}_[A-Z]{2}")
}

fn geolocation() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[A-Z;=]{1,4}", line(), 0..3)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(line().prop_map(|text| name(&text, 0)), 0..3)
}

prop_compose! {
    fn pool()(text in line(), geolocation in geolocation(), hosts in vec((line(), 0..5u8), 0..3),
              tftp_servers in texts(), roaming: bool) -> DevicePool {
        let manager = |(host, priority): (String, u8)| CallManager { host: name(&host, 0), priority };
        DevicePool {
            name: DevicePoolName::new(name(&text, 0)).unwrap(),
            geolocation,
            call_managers: hosts.into_iter().map(manager).collect(),
            tftp_servers,
            roaming,
location: None, call_group: None,
}
    }
}

prop_compose! {
    fn place()(text in line(), fields in geolocation()) -> Geolocation {
        Geolocation { name: GeolocationName::new(name(&text, 0)).unwrap(), fields }
    }
}

prop_compose! {
    fn call_group()(text in line(), hosts in vec((line(), 0..5u8), 0..3)) -> CallGroup {
        let manager = |(host, priority): (String, u8)| CallManager { host: name(&host, 0), priority };
        CallGroup {
            name: CallGroupName::new(name(&text, 0)).unwrap(),
            members: hosts.into_iter().map(manager).collect(),
        }
    }
}

prop_compose! {
    fn service()(text in line(), path in "[a-z;|=#\\\\\"]{0,8}", menu in 0..3usize) -> PhoneService {
        PhoneService {
            name: ServiceName::new(name(&text, 0)).unwrap(),
            url: format!("https://phones.example/{path}"),
            menu: ServiceMenu::ALL[menu],
        }
    }
}

prop_compose! {
    fn application()(text in line(), proxy: bool, with_hash: bool) -> (Application, bool) {
        (Application { id: ApplicationId::new(name(&text, 0)).unwrap(), proxy }, with_hash)
    }
}

/// Any of these may be set.
fn settings() -> impl Strategy<Value = Vec<Setting>> {
    let all = vec![
        ("emcc-geolocation-filter", "A3,country"),
        ("inter-cluster-maximum-login-time", "8:30"),
        ("maximum-concurrent-requests", "17"),
        ("multiple-login-behavior", "auto-logout"),
        ("trusted-ips", "10.0.0.1;2001:db8::1"),
    ];
    proptest::sample::subsequence(all, 0..=5).prop_map(|set| {
        let setting = |(name, value): (&str, &str)| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            set_at: Timestamp::from_millis(1),
            set_by: "somebody".to_owned(),
        };
        set.into_iter().map(setting).collect()
    })
}

prop_compose! {
    fn policy()(text in line(), failures_before_lock in 0..101u32, failure_window in 1..121u32,
                lock_duration in 1..1_441u32, min_length in 4..21u32, more in 0..45u32, trivial_check: bool) -> Policy {
        let rules = Rules {
            failures_before_lock,
            failure_window,
            lock_duration,
            min_length,
            max_length: min_length + more.min(64 - min_length),
            trivial_check,
        };
        Policy { name: PolicyName::new(name(&text, 0)).unwrap(), rules }
    }
}

prop_compose! {
    fn user()(text in line(), display_name in line(), with_id: bool, extension in proptest::option::of("[0-9]{1,4}"),
              enabled: bool, emcc_enabled: bool, with_hash: bool) -> (User, bool) {
        let user = User {
            user_id: UserId::new(name(&text, 0)).unwrap(),
            self_service_id: with_id.then(|| LoginName::new("x").unwrap()),
            primary_extension: extension.map(|text| LoginName::new(text).unwrap()),
            display_name,
            enabled,
            emcc_enabled,
            policy: None,
        };
        (user, with_hash)
    }
}

prop_compose! {
    fn device()(model in line(), sccp: bool, secure: bool, emcc: bool, em_enabled: bool, locale in locale(), geolocation in geolocation())
        -> Device {
        Device {
            name: DeviceName::new("SEP").unwrap(),
            model,
            protocol: if sccp { "SCCP" } else { "SIP" }.to_owned(),
            security_mode: if secure { SecurityMode::Secure } else { SecurityMode::NonSecure },
            emcc,
            em_enabled,
            device_pool: None,
            locale,
            geolocation,
location: None, services: Vec::new(),
}
    }
}

prop_compose! {
    fn profile()(text in line(), lines in vec((1..9u32, line(), line()), 0..3), is_default: bool,
                 locale in proptest::option::of("[a-z]{2}"), user: usize, pool: Option<u8>) -> (Profile, usize, Option<u8>) {
        let line = |(index, number, label): (u32, String, String)| {
            let number = if number.is_empty() { "4711".to_owned() } else { number };
            Line { index, number, label }
        };
        let profile = Profile {
            name: ProfileName::new(name(&text, 0)).unwrap(),
            user_id: UserId::new("x").unwrap(),
            is_default,
            lines: lines.into_iter().map(line).collect(),
            locale,
            device_pool: None,
services: Vec::new(),
};
        (profile, user, pool)
    }
}

prop_compose! {
    fn peer()(node_names in texts(), user_patterns in texts(), dn_patterns in texts(), enabled: bool, allow_emcc: bool,
              ignore_eku: bool, acceptance in 0..3usize, description in line()) -> Peer {
        Peer {
            cluster_id: ClusterId::new("x").unwrap(),
            enabled,
            allow_emcc,
            addresses: vec!["a.example:1".to_owned(), "[2001:db8::1]:2".to_owned()],
            node_names,
            user_patterns,
            dn_patterns,
            ignore_eku,
            accept_announcements: [Acceptance::Auto, Acceptance::Approve, Acceptance::Off][acceptance],
            description: description.trim().to_owned(),
        }
    }
}

prop_compose! {
    fn data()(mut pools in vec(pool(), 1..4), mut users in vec(user(), 1..5), profiles in vec(profile(), 0..5),
              mut devices in vec(device(), 0..4), base_devices in 0..4usize, mut peers in vec(peer(), 0..3),
              mut geolocations in vec(place(), 1..3), mut call_groups in vec(call_group(), 1..3),
              mut services in vec(service(), 1..4), mut applications in vec(application(), 0..3),
              settings in settings(), mut policies in vec(policy(), 1..4)) -> Data {
        for (number, policy) in policies.iter_mut().enumerate() {
            // Some are the one that is always there.
            policy.name = if number == 1 {
                PolicyName::of_all_others()
            } else {
                PolicyName::new(name(policy.name.as_str(), number)).unwrap()
            };
        }
        for (number, place) in geolocations.iter_mut().enumerate() {
            place.name = GeolocationName::new(name(place.name.as_str(), number)).unwrap();
        }
        for (number, group) in call_groups.iter_mut().enumerate() {
            group.name = CallGroupName::new(name(group.name.as_str(), number)).unwrap();
        }
        for (number, service) in services.iter_mut().enumerate() {
            service.name = ServiceName::new(name(service.name.as_str(), number)).unwrap();
        }
        for (number, (application, _)) in applications.iter_mut().enumerate() {
            application.id = ApplicationId::new(name(application.id.as_str(), number)).unwrap();
        }
        let subscribed = |number: usize| -> Vec<_> {
            services.iter().rev().take(number % (services.len() + 1)).map(|s| s.name.clone()).collect()
        };
        for (number, pool) in pools.iter_mut().enumerate() {
            pool.name = DevicePoolName::new(name(pool.name.as_str(), number)).unwrap();
            if pool.geolocation.is_empty() {
                pool.location = geolocations.get(number).map(|place| place.name.clone());
            }
            if pool.call_managers.is_empty() {
                pool.call_group = call_groups.get(number).map(|group| group.name.clone());
            }
        }
        for (number, (user, _)) in users.iter_mut().enumerate() {
            user.user_id = UserId::new(name(user.user_id.as_str(), number)).unwrap();
            user.policy = (number % 2 == 0).then(|| policies[0].name.clone());
            user.self_service_id = user.self_service_id.take().map(|id| LoginName::new(name(id.as_str(), number)).unwrap());
        }
        let place = |number: usize, of: usize| number % of;
        let profiles = profiles.into_iter().enumerate().map(|(number, (mut profile, user, pool))| {
            profile.name = ProfileName::new(name(profile.name.as_str(), number)).unwrap();
            profile.user_id = users[place(user, users.len())].0.user_id.clone();
            profile.device_pool = pool.map(|pool| pools[place(pool.into(), pools.len())].name.clone());
            profile.services = subscribed(user % 7);
            profile
        }).collect();
        for (number, device) in devices.iter_mut().enumerate() {
            device.name = DeviceName::new(name("SEP", number)).unwrap();
            device.device_pool = (number % 2 == 0).then(|| pools[place(number, pools.len())].name.clone());
            device.services = subscribed(number);
            if device.geolocation.is_empty() {
                device.location = geolocations.get(number).map(|place| place.name.clone());
            }
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.cluster_id = ClusterId::new(name("c", number)).unwrap();
        }
        let base_devices = (0..base_devices).map(|n| BaseDeviceName::new(name("E", n)).unwrap()).collect();
        Data {
            geolocations, call_groups, services, applications, settings, pools, policies, users, profiles, devices, base_devices,
            peers,
        }
    }
}

impl World {
    /// Writes the records past the files.
    async fn put(&self, data: &Data, phc: &Phc) {
        let (data, phc) = (data.clone(), phc.clone());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                for place in &data.geolocations {
                    geolocations::upsert(tx, place)?;
                }
                for group in &data.call_groups {
                    call_groups::upsert(tx, group)?;
                }
                for service in &data.services {
                    phone_services::upsert(tx, service)?;
                }
                for (application, with_hash) in &data.applications {
                    applications::upsert(tx, application)?;
                    if *with_hash {
                        applications::put_hash(tx, &application.id, &phc)?;
                    }
                }
                for setting in &data.settings {
                    parameters::set(tx, setting)?;
                }
                for pool in &data.pools {
                    pools::upsert(tx, pool)?;
                }
                for policy in &data.policies {
                    policies::upsert(tx, policy)?;
                }
                for (user, with_hash) in &data.users {
                    users::upsert(tx, user)?;
                    if *with_hash {
                        stored::put_hash(tx, &user.user_id, &phc, Timestamp::from_millis(1))?;
                    }
                }
                for profile in &data.profiles {
                    profiles::upsert(tx, profile)?;
                }
                for device in &data.devices {
                    devices::upsert(tx, device)?;
                }
                for name in &data.base_devices {
                    store::base_devices::upsert(tx, name)?;
                }
                for peer in &data.peers {
                    peers::upsert(tx, peer)?;
                }
                Ok::<_, store::Error>(())
            })
            .await
            .unwrap();
    }

    async fn export(&self, format: Format) -> Vec<(String, String)> {
        let files = export(&self.store, format).await.unwrap();
        let text = |file: Exported| (file.file, file.text.to_string());
        files.into_iter().map(text).collect()
    }

    async fn apply_files(&self, files: &[(String, String)]) -> Result<Vec<Change>, Error> {
        let source = |(name, text): &(String, String)| Source {
            name: name.clone(),
            text: text.clone().into(),
        };
        let sources: Vec<_> = files.iter().map(source).collect();
        self.applier
            .apply(&sources, Mode::Write, Rest::Stays, "user root")
            .await
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn some_hash(world: &World) -> Phc {
    let pin = crate::secret::Pin::new("246809".to_owned()).unwrap();
    let far = std::time::Instant::now() + std::time::Duration::from_secs(60);
    world.applier.credentials.hash(&pin, far).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_exported_makes_the_same_again(data in data(), at_once_from in 0..4usize) {
        runtime().block_on(async {
            let from = world();
            from.put(&data, &some_hash(&from).await).await;
            for format in Format::ALL {
                let files = from.export(format).await;
                let mut to = world();
                to.applier.at_once_from = at_once_from;
                let added = to.apply_files(&files).await.unwrap();
                // One policy is there whatever happens.
                let is_new = |c: &Change| c.action == Action::Added || (c.kind, &*c.name) == ("policy", "default");
                assert!(added.iter().all(is_new), "{added:?}");
                for format in Format::ALL {
                    assert_eq!(to.export(format).await, from.export(format).await);
                }
                // And nothing is left to do, at either end.
                for world in [&to, &from] {
                    let again = world.apply_files(&files).await.unwrap();
                    assert!(actions(&again).iter().all(|a| *a == Action::Unchanged), "{again:?}");
                }
            }
        });
    }
}

/// What can be wrong with a row, each for a row numbered so; and the rows that are right.
const ROWS: &[(bool, &str)] = &[
    (true, "[[user]]\nid = \"u#\"\nextension = \"1\""),
    (true, "[[user]]\nid = \"u#\"\nself-service-id = \"s#\""),
    (true, "[[device]]\nname = \"SEP#\"\nprotocol = \"SCCP\""),
    (true, "[[device-pool]]\nname = \"p#\"\nroaming = true"),
    (true, "[[base-device]]\nname = \"E#-\"\ncount = 2"),
    (true, "[[peer]]\nid = \"c#\"\naddresses = [\"a:1\"]"),
    (true, "[[profile]]\nname = \"f#\"\nuser = \"first\""),
    (
        true,
        "[[geolocation]]\nname = \"g#\"\nfields = { country = \"DE\" }",
    ),
    (true, "[[call-control-group]]\nname = \"k#\""),
    (true, "[[policy]]\nname = \"p#\"\nfailures-before-lock = 0"),
    (
        true,
        "[[phone-service]]\nname = \"s#\"\nurl = \"http://a/\"\nmenu = \"messages\"",
    ),
    (
        true,
        "[[application-user]]\nid = \"a#\"\nauthentication-proxy = true",
    ),
    (
        false,
        "[[geolocation]]\nname = \"g#\"\nfields = { \"\" = \"x\" }",
    ),
    (
        false,
        "[[call-control-group]]\nname = \"k#\"\nmembers = [{ host = \"h\", priority = 5 }]",
    ),
    (
        false,
        "[[phone-service]]\nname = \"s#\"\nurl = \"ftp://a/\"",
    ),
    (
        false,
        "[[phone-service]]\nname = \"s#\"\nurl = \"http://a/\"\nmenu = \"x\"",
    ),
    (false, "[[application-user]]\nid = \"a#\"\npassword = \" \""),
    (
        false,
        "[[application-user]]\nid = \"a#\"\npassword-hash = \"x\"",
    ),
    (false, "[[parameter]]\nname = \"nothing#\"\nvalue = \"1\""),
    (
        false,
        "[[parameter]]\nname = \"maximum-concurrent-requests\"\nvalue = \"many\"",
    ),
    (false, "[[policy]]\nname = \"p#\"\nmin-length = 3"),
    (
        false,
        "[[policy]]\nname = \"p#\"\nmin-length = 9\nmax-length = 8",
    ),
    (false, "[[user]]\nid = \"u#\"\npolicy = \"nowhere\""),
    (false, "[[user]]\nid = \"u#\"\npin = \"123\""),
    (
        false,
        "[[device-pool]]\nname = \"p#\"\ncall-control-group = \"nowhere\"",
    ),
    (false, "[[device]]\nname = \"SEP#\"\nlocation = \"nowhere\""),
    (
        false,
        "[[profile]]\nname = \"f#\"\nuser = \"first\"\nservices = [\"nowhere\"]",
    ),
    (false, "[[user]]\nid = \"\"\nextension = \"1\""),
    (false, "[[user]]\nid = \"u#\"\nextention = \"1\""),
    (false, "[[user]]\nid = \"u#\"\nenabled = 1"),
    (false, "[[user]]\nid = \"u#\"\npin = \" \""),
    (false, "[[user]]\nid = \"FIRST\"\nextension = \"1\""),
    (false, "[[user]]\nid = \"u#\"\nself-service-id = \"first\""),
    (false, "[[user]]\nid = \"u#\"\nself-service-id = \"held\""),
    (false, "[[device]]\nname = \"SEP#\"\nprotocol = \"H323\""),
    (
        false,
        "[[device]]\nname = \"SEP#\"\ndevice-pool = \"nowhere\"",
    ),
    (
        false,
        "[[device-pool]]\nname = \"p#\"\ntftp-servers = [\"\"]",
    ),
    (false, "[[base-device]]\nname = \"E#-\"\ncount = 0"),
    (false, "[[peer]]\nid = \"berlin\"\naddresses = [\"a:1\"]"),
    (false, "[[peer]]\nid = \"c#\"\naddresses = [\"a\"]"),
    (false, "[[profile]]\nname = \"f#\"\nuser = \"nobody\""),
    (false, "[[profile]]\nname = \"f#\"\nlocale = \"de\""),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_mix_of_good_and_broken_rows_changes_all_or_nothing(
        picked in vec(prop_oneof![2 => 0..11usize, 1 => 0..ROWS.len()], 1..12), at_once_from in 0..4usize
    ) {
        runtime().block_on(async {
            let mut world = world();
            world.applier.at_once_from = at_once_from;
            world.apply(&user_row("holder", "held"), Mode::Write).await.unwrap();
            let mut text = user_row("first", "first");
            let mut broken = BTreeSet::new();
            for (number, pick) in picked.iter().enumerate() {
                let (is_good, row) = ROWS[*pick];
                if !is_good {
                    broken.insert(text.lines().count() + 1);
                }
                text += &row.replace('#', &number.to_string());
                text.push('\n');
            }
            let before = world.export(Format::Toml).await;
            match world.apply(&text, Mode::Write).await {
                Ok(changes) => {
                    assert!(broken.is_empty(), "{broken:?} went through:\n{text}");
                    assert!(changes.len() > picked.len());
                    assert!(actions(&changes).iter().all(|a| *a == Action::Added), "{changes:?}");
                }
                Err(Error::Problems(problems)) => {
                    // A problem stands in its row's first line, or in that of the column.
                    let row_of = |line: usize| {
                        let above = text.lines().take(line).enumerate();
                        above.filter(|(_, text)| text.starts_with("[[")).last().unwrap().0 + 1
                    };
                    let told: BTreeSet<_> = problems.told().iter().map(|p| row_of(p.line)).collect();
                    assert_eq!(told, broken, "{problems:?}\n{text}");
                    assert_eq!(world.export(Format::Toml).await, before);
                }
                Err(other) => panic!("{other}"),
            }
        });
    }
}

#[tokio::test]
async fn an_export_leaves_out_what_is_the_default_and_clear_pins() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let toml = world.export(Format::Toml).await;
    let text = |file: &str| &toml.iter().find(|(name, _)| name == file).unwrap().1;
    assert_eq!(
        text("device-pools.toml"),
        "[[device-pool]]\nname = \"Hamburg\"\ncall-managers = [{ host = \"cucm1\", priority = 1 }, \
         { host = \"cucm0\", priority = 0 }]\n"
    );
    assert_eq!(
        text("base-devices.toml"),
        "[[base-device]]\nname = \"EMCC1\"\n\n[[base-device]]\nname = \"EMCC2\"\n\n\
         [[base-device]]\nname = \"EMCC3\"\n"
    );
    assert!(text("users.toml").contains("pin-hash = \"$argon2id$"));
    let csv = world.export(Format::Csv).await;
    let devices = csv.iter().find(|(name, _)| name == "devices.csv").unwrap();
    assert_eq!(
        devices.1,
        "name,model,protocol,security-mode,emcc,extension-mobility,device-pool,locale,geolocation,location,services\n\
         SEP1,CP-8841,SIP,non-secure,true,true,,,,,\n"
    );
    for (_, text) in toml.iter().chain(&csv) {
        assert!(!text.contains("246809"), "{text}");
    }
    assert!(
        csv.iter()
            .any(|(_, text)| text.starts_with("id,name,self-service-id,extension,pin-hash,"))
    );
}

#[tokio::test]
async fn csv_and_toml_are_one_change_and_problems_name_the_file() {
    let world = world();
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [
        file("pools.toml", "[[device-pool]]\nname = \"Hamburg\"\n"),
        file("users.csv", "id;name;pin\nana;\"Berg; Ana\";246809\n"),
        file(
            "profiles-hh.csv",
            "name,user,device-pool,lines\nana-1,ana,Hamburg,1|1001|Ana;2|1002\n",
        ),
    ];
    let changes = world.apply_files(&files).await.unwrap();
    assert_eq!(actions(&changes), [Action::Added; 3]);
    let broken = [
        file("users.csv", "id,pin\nbo,246809\ncy,\n\nbo,1\n"),
        file("people.csv", "id\nx\n"),
        file("devices.csv", "name,emcc\nSEP1,246809\nSEP2\n"),
    ];
    let Err(Error::Problems(problems)) = world.apply_files(&broken).await else {
        panic!("broken files were taken");
    };
    let told: Vec<_> = problems.told().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "users.csv:5: user.id: it stands in users.csv:2 already",
            "users.csv:5: user.pin: the policy default refuses it: it must have at least 6 digits (too_short); there \
             must be three different digits at least (few_distinct)",
            "people.csv:1: the name of a CSV file says what it holds: one of geolocations, call-control-groups, \
             phone-services, device-pools, policies, users, profiles, devices, base-devices, application-users, peers, \
             parameters, then .csv, or something more behind a dash",
            "devices.csv:2: device.emcc: it must be true or false",
            "devices.csv:3: device: there are 1 cells, and the first line names 2 columns",
        ]
    );
    assert_eq!(world.count_users().await, 1);
}
