//! The pages, with a node that is made up.

use axum::body::Body;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

struct MadeUp(Vec<Reason>);

impl Probe for MadeUp {
    fn whose(&self) -> Whose {
        Whose {
            cluster: "munich".to_owned(),
            node: "n1".to_owned(),
        }
    }

    fn reasons(&self) -> Reply<'_, Vec<Reason>> {
        Box::pin(async { self.0.clone() })
    }

    fn readings(&self) -> Reply<'_, Vec<Reading>> {
        let reading = |metric, labels: &[&str], value| Reading {
            metric,
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            value,
        };
        Box::pin(async move {
            vec![
                reading(&table::LINK_UP, &["tokyo"], 1.0),
                reading(&table::STORE_COMMITS, &[], 7.0),
                reading(&table::LINK_UP, &["a\"b\\"], 0.0),
            ]
        })
    }
}

async fn get_page(
    reasons: &[Reason],
    metrics: &Metrics,
    path: &str,
    accept: &str,
) -> (u16, String) {
    let router = router(metrics.clone(), Arc::new(MadeUp(reasons.to_vec())));
    let request = Request::get(path)
        .header(header::ACCEPT, accept)
        .body(Body::empty());
    let response = router.oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn what_is_counted_and_what_is_looked_up_are_one_page() {
    let metrics = Metrics::default();
    metrics.login(Role::Visiting, Outcome::Success, Instant::now());
    metrics.login(Role::Home, Outcome::Refused(EmCode::Busy), Instant::now());
    metrics.logout(Role::Visiting, By::Peer, Outcome::Success);
    let (status, text) = get_page(&[], &metrics, "/metrics", "").await;
    assert_eq!(status, 200);
    for line in [
        "# TYPE emccd_logins counter",
        "emccd_logins_total{role=\"visiting\",outcome=\"success\"} 1",
        "emccd_logins_total{role=\"home\",outcome=\"26\"} 1",
        "emccd_logouts_total{role=\"visiting\",by=\"peer\",outcome=\"success\"} 1",
        // Nothing has happened yet, and that is told.
        "emccd_logins_total{role=\"home\",outcome=\"6\"} 0",
        "emccd_logouts_total{role=\"visiting\",by=\"phone\",outcome=\"success\"} 0",
        "emccd_peer_calls_total{call=\"logout\"} 0",
        "emccd_login_duration_seconds_count{role=\"home\"} 1",
        "# TYPE emccd_link_up gauge",
        "emccd_link_up{peer=\"tokyo\"} 1.0",
        "emccd_link_up{peer=\"a\\\"b\\\\\"} 0.0",
        "emccd_store_commits_total 7.0",
        "emccd_ready 1.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# TYPE emccd_link_up ").count(), 1);
}

#[tokio::test]
async fn a_node_that_can_not_serve_says_why_to_people_and_to_programs() {
    let reasons = [Reason {
        id: "draining",
        text: "the node is shutting down".to_owned(),
    }];
    let metrics = Metrics::default();
    let text = get_page(&reasons, &metrics, "/readyz", "*/*").await;
    assert_eq!(
        text,
        (
            503,
            "not ready\ndraining: the node is shutting down\n".to_owned()
        )
    );
    for (path, accept) in [("/readyz", "application/json"), ("/readyz?format=json", "")] {
        let (status, text) = get_page(&reasons, &metrics, path, accept).await;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &value["ready"]), (503, &false.into()));
        assert_eq!(value["reasons"][0]["id"], "draining");
        assert_eq!(
            (&value["cluster"], &value["node"]),
            (&"munich".into(), &"n1".into())
        );
    }
    assert_eq!(
        get_page(&[], &metrics, "/readyz", "").await,
        (200, "ready\n".to_owned())
    );
    // It lives all the same.
    assert_eq!(get_page(&reasons, &metrics, "/healthz", "").await.0, 200);
    assert_eq!(get_page(&reasons, &metrics, "/", "").await.0, 404);
    let (_, figures) = get_page(&reasons, &metrics, "/metrics", "").await;
    assert!(figures.contains("emccd_ready 0.0"));
}

#[tokio::test]
async fn requests_are_counted_while_they_are_in_flight_and_when_they_are_cut_off() {
    let metrics = Metrics::default();
    let seen = metrics.clone();
    let routes = Router::new().route(
        "/",
        get(move || async move { seen.inner.in_progress.get().to_string() }),
    );
    let routes = metrics.counting(routes.route("/never", get(std::future::pending::<()>)));
    let ask = |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        routes.clone().oneshot(request)
    };
    let body = ask("/").await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "1");
    let cut_off = tokio::time::timeout(Duration::from_millis(20), ask("/never")).await;
    assert!(cut_off.is_err());
    assert_eq!(metrics.inner.in_progress.get(), 0);
    assert_eq!(metrics.inner.handled.get(), 1);
}
