//! Multiple logins, roaming pools, and what the answer tells the phone.

use super::*;
use crate::{
    domain::{
        federation::{LinkState, Links},
        ids::{CallGroupName, DevicePoolName, GeolocationName, ServiceName},
        liveness::Incarnation,
        login::{CallManager, PhoneService, ServiceMenu},
        parameters::{Parameters, WhenUnreachable},
    },
    store::{
        call_groups::{self, CallGroup},
        geolocations::{self, Geolocation},
        node_links::{self, Link},
        nodes::{self, Node},
        phone_services,
        pools::{self, DevicePool},
    },
};

/// Only these clusters can be told of anything.
#[derive(Debug)]
struct Up(&'static [&'static str]);

impl Links for Up {
    fn is_up(&self, cluster: &ClusterId) -> bool {
        self.0.contains(&cluster.as_str())
    }
}

impl World {
    fn goes_by(&self, change: impl FnOnce(&mut Parameters)) {
        let mut parameters = (*self.role.parameters()).clone();
        change(&mut parameters);
        self.role.parameters.publish(parameters);
    }

    fn policy(&self, behavior: MultipleLoginBehavior, unreachable: WhenUnreachable) {
        self.goes_by(|p| {
            p.multiple_login_behavior = behavior;
            p.multiple_login_unreachable = unreachable;
        });
    }

    async fn pool(&self, name: &'static str, roaming: bool, place: &'static [(&str, &str)]) {
        let pool = DevicePool {
            name: DevicePoolName::new(name).unwrap(),
            geolocation: fields(place),
            call_managers: [("late", 2), ("first", 0)]
                .map(|(host, priority)| CallManager {
                    host: format!("{host}.{name}"),
                    priority,
                })
                .into(),
            tftp_servers: vec![format!("tftp.{name}")],
            roaming,
            location: None,
            call_group: None,
        };
        self.store
            .write(move |tx: &mut dyn Transaction| pools::upsert(tx, &pool))
            .await
            .unwrap();
    }

    /// Gives ana's profile a pool and a locale.
    async fn profile(&self, pool: Option<&'static str>, locale: Option<&'static str>) {
        let profile = Profile {
            name: ProfileName::new("ana-profile").unwrap(),
            user_id: UserId::new("ana").unwrap(),
            is_default: true,
            lines: Vec::new(),
            locale: locale.map(str::to_owned),
            device_pool: pool.map(|name| DevicePoolName::new(name).unwrap()),
            services: Vec::new(),
        };
        self.store
            .write(move |tx: &mut dyn Transaction| profiles::upsert(tx, &profile))
            .await
            .unwrap();
    }
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

use MultipleLoginBehavior::{Allowed, AutoLogout, NotAllowed};
use WhenUnreachable::{Refuse, TakeOver};

#[tokio::test]
async fn multiple_logins_by_policy_and_by_where_the_first_session_is() {
    // Where the first is, and which clusters can be told; then where the second comes from, and what comes of it.
    for (behavior, unreachable, first, up, second, ends) in [
        (Allowed, Refuse, "lima", &[][..], "tokyo", Ok(false)),
        (NotAllowed, TakeOver, "lima", &["lima"], "tokyo", Err(25)),
        (NotAllowed, TakeOver, "lima", &[], "tokyo", Err(25)),
        (NotAllowed, TakeOver, "tokyo", &[], "tokyo", Err(25)),
        (NotAllowed, TakeOver, "berlin", &[], "tokyo", Err(25)),
        (NotAllowed, TakeOver, "tokyo", &[], "berlin", Err(25)),
        (NotAllowed, TakeOver, "berlin", &[], "berlin", Err(25)),
        (AutoLogout, TakeOver, "lima", &["lima"], "tokyo", Ok(true)),
        (AutoLogout, TakeOver, "lima", &[], "tokyo", Ok(true)),
        (AutoLogout, Refuse, "lima", &["lima"], "tokyo", Ok(true)),
        (AutoLogout, Refuse, "lima", &["tokyo"], "tokyo", Err(25)),
        (AutoLogout, Refuse, "lima", &[], "berlin", Err(25)),
        // The caller is there, and our own cluster is.
        (AutoLogout, Refuse, "tokyo", &[], "tokyo", Ok(true)),
        (AutoLogout, Refuse, "berlin", &[], "tokyo", Ok(true)),
        (AutoLogout, Refuse, "berlin", &[], "berlin", Ok(true)),
    ] {
        let row = format!("{behavior:?} {unreachable:?} {first} up {up:?} {second}");
        let mut world = world(2).await;
        world.role.links = Arc::new(Up(up));
        world.policy(behavior, unreachable);
        let one = request("ana", "13579", "SEP1");
        world.opens(first, &one).await;
        let two = request("ana", "13579", "SEP2");
        let came = world.role.login(&from(second), &two).await;
        let came = came
            .map(drop)
            .map_err(|e| e.em_code(second == "berlin").number());
        assert_eq!(came, ends.map(drop), "{row}");
        let ended = world.state(first, one.session_id).await == Some(State::Ended);
        assert_eq!(ended, ends == Ok(true), "{row}");
        let owed = ended && first != "berlin";
        assert_eq!(!world.owed(first).await.is_empty(), owed, "{row}");
        let living = [(first, &one), (second, &two)];
        let mut held = 0;
        for (cluster, login) in living {
            let lives = world.state(cluster, login.session_id).await == Some(State::Active);
            held += usize::from(lives && cluster != "berlin");
        }
        assert_eq!(world.held().await, held, "{row}");
    }
}

/// The other node of ours, as the one that decides knows of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Other {
    /// It lives, and says this of its link to lima.
    Says(LinkState),
    /// It lives, and says that it is linked to another cluster alone.
    LinkedElsewhere,
    /// It said that it is linked, and is silent.
    Dead,
    /// It was linked, and has been started anew since.
    StartedAnew,
}

impl World {
    /// Puts the other node on record.
    pub(super) async fn other_node(&self, other: Other) {
        let n2 = |instance: &str| Node {
            run: Incarnation {
                node: "n2".to_owned(),
                instance: instance.to_owned(),
            },
            addresses: Vec::new(),
            software: String::new(),
            started_at: crate::clock::Timestamp::from_millis(1),
            beat: 0,
        };
        let own = Node {
            run: self.role.membership.run().clone(),
            ..n2("")
        };
        let (there, state) = match other {
            Other::Says(state) => ("lima", state),
            Other::LinkedElsewhere => ("tokyo", LinkState::Up),
            Other::Dead | Other::StartedAnew => ("lima", LinkState::Up),
        };
        let link = Link {
            cluster: cluster(there),
            state,
            since: crate::clock::Timestamp::from_millis(1),
            reason: None,
        };
        let anew = other == Other::StartedAnew;
        let (first, next) = (n2("a"), n2("b"));
        let lives = if anew { next.clone() } else { first.clone() };
        self.store
            .write(move |tx: &mut dyn Transaction| {
                nodes::register(tx, &first)?;
                assert!(node_links::put(
                    tx,
                    &first.run,
                    std::slice::from_ref(&link)
                )?);
                if anew {
                    nodes::register(tx, &next)?;
                }
                Ok::<_, store::Error>(())
            })
            .await
            .unwrap();
        let living = match other {
            Other::Dead => vec![own],
            _ => vec![own, lives],
        };
        self.role.membership.sees(living);
    }
}

#[tokio::test]
async fn a_cluster_that_any_living_node_of_ours_is_linked_to_can_be_told() {
    use LinkState::{Connecting, Down, Incompatible, Up};
    // Whether this node is linked to the first phone's cluster, and what is known of the other one.
    for (own, other, ends) in [
        (true, None, true),
        (false, None, false),
        (false, Some(Other::Says(Up)), true),
        (true, Some(Other::Says(Down)), true),
        (false, Some(Other::Says(Down)), false),
        (false, Some(Other::Says(Connecting)), false),
        (false, Some(Other::Says(Incompatible)), false),
        (false, Some(Other::LinkedElsewhere), false),
        (false, Some(Other::Dead), false),
        (false, Some(Other::StartedAnew), false),
    ] {
        for unreachable in [Refuse, TakeOver] {
            let row = format!("{own} {other:?} {unreachable:?}");
            let mut world = world(2).await;
            world.role.links = Arc::new(self::Up(if own { &["lima"] } else { &[] }));
            if let Some(other) = other {
                world.other_node(other).await;
            }
            world.policy(AutoLogout, unreachable);
            let one = request("ana", "13579", "SEP1");
            world.opens("lima", &one).await;
            let two = request("ana", "13579", "SEP2");
            let came = world.role.login(&from("tokyo"), &two).await;
            let came = came.map(drop).map_err(|e| e.em_code(false).number());
            // No node can tell it: the setting decides.
            let expected = ends || unreachable == TakeOver;
            assert_eq!(came, if expected { Ok(()) } else { Err(25) }, "{row}");
            let ended = world.state("lima", one.session_id).await == Some(State::Ended);
            assert_eq!(ended, expected, "{row}");
            // Whichever node delivers: it is owed.
            assert_eq!(!world.owed("lima").await.is_empty(), expected, "{row}");
        }
    }
}

#[tokio::test]
async fn the_last_base_device_goes_from_the_first_session_to_the_second() {
    let world = world(1).await;
    world.policy(AutoLogout, TakeOver);
    world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
    world.opens("lima", &request("ana", "13579", "SEP2")).await;
    assert_eq!(world.held().await, 1);
}

#[tokio::test]
async fn a_login_that_finds_no_room_or_may_not_be_ends_nobody() {
    let world = world(1).await;
    world.policy(AutoLogout, TakeOver);
    let local = request("ana", "13579", "SEP1");
    world.opens("berlin", &local).await;
    world.opens("tokyo", &request("bob", "13579", "SEP2")).await;
    assert_eq!(
        code(&world, "tokyo", &request("ana", "13579", "SEP3")).await,
        33
    );
    world.add_device("SEP4").await;
    assert_eq!(
        code(&world, "tokyo", &request("ana", "13579", "SEP4")).await,
        37
    );
    assert_eq!(
        world.state("berlin", local.session_id).await,
        Some(State::Active)
    );
}

#[tokio::test]
async fn a_second_submission_on_the_same_phone_is_no_second_phone() {
    for caller in ["tokyo", "berlin"] {
        let world = world(2).await;
        world.policy(NotAllowed, TakeOver);
        world.opens(caller, &request("ana", "13579", "SEP1")).await;
        world.opens(caller, &request("ana", "13579", "sep1")).await;
    }
}

#[tokio::test]
async fn a_visitors_phone_gets_the_roaming_pool_for_where_it_stands() {
    let world = world(9).await;
    world.pool("own", false, &[("country", "JP")]).await;
    world.pool("japan", true, &[("country", "JP")]).await;
    world
        .pool("osaka", true, &[("country", "JP"), ("A3", "Osaka")])
        .await;
    world.profile(Some("own"), None).await;
    let tokyo: &[(&str, &str)] = &[("country", "JP"), ("A3", "Tokyo")];
    let osaka: &[(&str, &str)] = &[("country", "jp"), ("A3", "Osaka")];
    let by = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
    for (number, (caller, place, filter, expected)) in [
        ("tokyo", tokyo, None, "japan"),
        ("tokyo", osaka, None, "osaka"),
        ("tokyo", osaka, by(&["country"]), "japan"),
        ("tokyo", osaka, by(&["A6"]), "own"),
        ("tokyo", &[("country", "DE")], None, "own"),
        ("tokyo", &[], None, "own"),
        ("berlin", osaka, None, "own"),
    ]
    .into_iter()
    .enumerate()
    {
        world.goes_by(|p| p.emcc_geolocation_filter = filter.clone());
        let mut login = request("ana", "13579", &format!("SEP{number}"));
        login.geolocation = fields(place);
        let services = world.opens(caller, &login).await;
        let case = format!("{caller} {place:?} {filter:?}");
        let name = services.device_pool.unwrap();
        assert_eq!(name.as_str(), expected, "{case}");
        let hosts: Vec<_> = services.call_managers.iter().map(|c| &*c.host).collect();
        assert_eq!(
            hosts,
            [format!("first.{expected}"), format!("late.{expected}")],
            "{case}"
        );
        assert_eq!(
            services.tftp_servers,
            [format!("tftp.{expected}")],
            "{case}"
        );
    }
}

#[tokio::test]
async fn the_parameters_tftp_servers_are_for_phones_that_are_elsewhere() {
    let world = world(2).await;
    world.pool("own", false, &[]).await;
    world.profile(Some("own"), None).await;
    world.goes_by(|p| p.backup_tftp_server = Some("backup.berlin".to_owned()));
    let remote = world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
    assert_eq!(remote.tftp_servers, ["tftp.own", "backup.berlin"]);
    let local = world
        .opens("berlin", &request("ana", "13579", "SEP2"))
        .await;
    assert_eq!(local.tftp_servers, ["tftp.own"]);
    world.goes_by(|p| {
        p.default_tftp_server = Some("first.berlin".to_owned());
        p.backup_tftp_server = Some("backup.berlin".to_owned());
    });
    let both = world.opens("tokyo", &request("ana", "13579", "SEP3")).await;
    assert_eq!(both.tftp_servers, ["first.berlin", "backup.berlin"]);
}

#[tokio::test]
async fn the_remaining_time_is_told_and_stored() {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    for (caller, inter, intra, enforced, expected) in [
        ("tokyo", 90, 30, true, Some(90)),
        ("tokyo", 0, 30, true, None),
        ("berlin", 90, 30, true, Some(30)),
        ("berlin", 90, 30, false, None),
        ("berlin", 90, 0, true, None),
    ] {
        let world = world(1).await;
        world.goes_by(|p| {
            p.inter_cluster_maximum_login_time = minutes(inter);
            p.intra_cluster_maximum_login_time = minutes(intra);
            p.enforce_intra_cluster_maximum_login_time = enforced;
        });
        let login = request("ana", "13579", "SEP1");
        let services = world.opens(caller, &login).await;
        let expected = expected.map(minutes);
        assert_eq!(services.remaining, expected);
        let (caller, id) = (cluster(caller), login.session_id);
        let row = world
            .store
            .read(move |tx: &mut dyn Transaction| sessions::get(tx, Role::Home, &caller, id))
            .await
            .unwrap()
            .unwrap();
        let until = expected.map(|length| row.changed_at.plus(length));
        assert_eq!(row.deadline, until);
    }
}

#[tokio::test]
async fn another_locale_asks_for_a_reset() {
    let world = world(3).await;
    world.profile(None, Some("de_DE")).await;
    for (number, (locale, reset)) in [(Some("ja_JP"), true), (Some("de_DE"), false), (None, false)]
        .into_iter()
        .enumerate()
    {
        let mut login = request("ana", "13579", &format!("SEP{number}"));
        login.device.locale = locale.map(str::to_owned);
        let services = world.opens("tokyo", &login).await;
        assert_eq!(services.reset, reset, "{locale:?}");
        assert_eq!(services.locale.as_deref(), Some("de_DE"));
        assert!(services.restart_reason.is_some());
    }
}

#[tokio::test]
async fn a_pool_that_names_a_place_and_a_group_is_found_by_the_one_and_answers_with_the_other() {
    let world = world(2).await;
    world.pool("own", false, &[]).await;
    world.profile(Some("own"), None).await;
    let service = |name: &str| PhoneService {
        name: ServiceName::new(name).unwrap(),
        url: format!("https://{name}.example/"),
        menu: ServiceMenu::Directories,
    };
    let (menu, news) = (service("menu"), service("news"));
    let given = [menu.clone(), news.clone()];
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            geolocations::upsert(
                tx,
                &Geolocation {
                    name: GeolocationName::new("Ginza").unwrap(),
                    fields: fields(&[("country", "JP")]),
                },
            )?;
            call_groups::upsert(
                tx,
                &CallGroup {
                    name: CallGroupName::new("East").unwrap(),
                    members: [("late", 4), ("first", 1)]
                        .map(|(host, priority)| CallManager {
                            host: host.to_owned(),
                            priority,
                        })
                        .into(),
                },
            )?;
            for service in &given {
                phone_services::upsert(tx, service)?;
            }
            let mut profile = profiles::for_user(tx, &UserId::new("ana").unwrap())?.remove(0);
            // Another order than that of the names, and one that is gone since.
            let named = ["news", "gone", "menu"];
            profile.services = named.map(|name| ServiceName::new(name).unwrap()).into();
            profiles::upsert(tx, &profile)?;
            pools::upsert(
                tx,
                &DevicePool {
                    name: DevicePoolName::new("Roaming JP").unwrap(),
                    geolocation: BTreeMap::new(),
                    location: GeolocationName::new("Ginza").ok(),
                    call_managers: Vec::new(),
                    call_group: CallGroupName::new("East").ok(),
                    tftp_servers: Vec::new(),
                    roaming: true,
                },
            )
        })
        .await
        .unwrap();
    for (number, (country, pool, hosts)) in [
        ("JP", "Roaming JP", ["first", "late"]),
        ("DE", "own", ["first.own", "late.own"]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut login = request("ana", "13579", &format!("SEP{number}"));
        login.geolocation = fields(&[("country", country)]);
        let services = world.opens("tokyo", &login).await;
        assert_eq!(services.device_pool.unwrap().as_str(), pool);
        let told: Vec<_> = services.call_managers.iter().map(|c| &*c.host).collect();
        assert_eq!(told, hosts);
        assert_eq!(services.phone_services, [news.clone(), menu.clone()]);
    }
}
