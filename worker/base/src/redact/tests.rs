use proptest::prelude::*;
use serde_json::{Value, json};

use super::secrets::{LONGEST_NAME, SEARCHED};
use super::*;

fn redactor(credential: &Value) -> Redactor {
    Redactor::new([&Json::encode(credential).unwrap()], [])
}

fn check(credential: &Value, message: &str, expected: &str) {
    let message = Json::parse(message.to_owned()).unwrap();
    assert_eq!(redactor(credential).json(message).as_str(), expected, "{credential}");
}

fn check_text(credential: &Value, text: &str, expected: &str) {
    assert_eq!(redactor(credential).text(text), expected, "{credential}");
}

#[test]
fn secrets_in_strings() {
    let password = json!({"user": "ann", "password": "hunter2"});
    check(&password, r#"[{"user":"ann","password":"hunter2"}]"#, r#"[{"user":"ann","password":"***"}]"#);
    check(&password, r#"["xhunter2yhunter2"]"#, r#"["x***y***"]"#);
    check(&password, r#"[{"hunter2":1}]"#, r#"[{"***":1}]"#);
    check(&password, r#"["\u0068unter2 \n"]"#, r#"["*** \n"]"#);
    check(&password, r#"["\ud83dhunter2"]"#, "[\"\u{fffd}***\"]");
    check(&password, r#"["hunter", 2, null, "a\"b\\"]"#, r#"["hunter", 2, null, "a\"b\\"]"#);
    check(&json!({"password": "short"}), r#"["short"]"#, r#"["short"]"#);
    check(&json!({"password": "é\"\nlong"}), r#"["é\"\nlong"]"#, r#"["***"]"#);
    check(&json!({"password": "é\"\nlong"}), r#"["{\"p\":\"é\\\"\\nlong\"}"]"#, r#"["{\"p\":\"***\"}"]"#);
    check(&json!({"key": "-- KEY --\nMIIEow\nend"}), r#"["MIIEow","end","-- KEY --"]"#, r#"["***","end","***"]"#);
    check(&json!({"deep": [{"er": {"token": "secret!"}}]}), r#"["secret!"]"#, r#"["***"]"#);
}

#[test]
fn all_texts_are_secrets_in_what_cannot_be_read() {
    for value in [format!("{}\"secret!\"{}", "[".repeat(200), "]".repeat(200)), r#"[1e999,"secret!"]"#.to_owned()] {
        let credential = Json::parse(format!(r#"{{"host":{value}}}"#)).unwrap();
        assert_eq!(Redactor::new([&credential], []).text("a secret!"), "a ***", "{value}");
    }
}

/// Which of them counts is up to who reads the credential.
#[test]
fn a_key_that_comes_twice_has_two_secrets() {
    let credential = Json::parse(r#"{"user":"ann","pin":"abc","pin":"first!","pin":"second"}"#.to_owned()).unwrap();
    let redactor = Redactor::new([&credential], []);
    assert_eq!(redactor.text("first! second ann:abc"), "*** *** ***");
}

#[test]
fn numbers_that_are_secrets() {
    for pin in [json!({"pin": "123456"}), json!({"pin": 123456}), json!({"pin": -123456}), json!([123456.0])] {
        check(&json!({ "deep": pin }), "[123456,1234567,[123456]]", r#"["***",1234567,["***"]]"#);
        check_text(&json!({ "deep": pin }), "pin=123456", "pin=***");
    }
    check(&json!({"pin": 12345}), "[12345]", "[12345]");
    check(&json!({"port": 123456}), "[123456]", "[123456]");
    check(&json!({"id": 12345678901234567890_u64}), "[12345678901234567000]", r#"["***"]"#);
    check(&json!({"rate": 0.12345678}), "[0.12345678]", r#"["***"]"#);
    check(&json!({"literal": "null,true"}), "[null,true]", "[null,true]");
}

#[test]
fn encoded_forms() {
    let login = json!({"username": "ann", "password": "hunter2"});
    let forms = [
        ("Basic YW5uOmh1bnRlcjI=", "Basic ***"),
        ("Basic eHk6aHVudGVyMg==", "Basic eHk6***"),
        ("aHVudGVyMg==", "***"),
        ("aHVudGVyMg", "***"),
        ("68756e74657232", "***"),
        ("0x68756E74657232!", "0x***!"),
    ];
    for (form, expected) in forms {
        check_text(&login, form, expected);
    }
    check(&json!({"email": "a@b.c", "password": "hi"}), r#"["YUBiLmM6aGk=", "a@b.c:hi"]"#, r#"["***", "***"]"#);
    check_text(&json!({"client_id": "an-id", "client_secret": "s3c"}), "Basic YW4taWQ6czNj", "Basic ***");
    let token = json!({"token": "?>?>?>>>"});
    check_text(&token, "Pz4/Pj8+Pj4= Pz4_Pj8-Pj4", "*** ***");
}

#[test]
fn logins_under_every_name() {
    let names = [
        "user",
        "username",
        "email",
        "login",
        "id",
        "client_id",
        "clientId",
        "account_sid",
        "accountSid",
        "api_key",
        "apiKey",
    ];
    let secrets = [
        "password",
        "pass",
        "passwd",
        "pwd",
        "pin",
        "secret",
        "client_secret",
        "clientSecret",
        "token",
        "auth_token",
        "AUTH_TOKEN",
    ];
    let words = ["an_id", "s3c"];
    let basic = format!("Authorization: Basic {}", data(&words.join(":")));
    for name in names {
        check_text(&json!({ name: words[0], "pin": words[1] }), &basic, "Authorization: Basic ***");
        check_text(&json!({ name: words[0], "other": words[1] }), &basic, &basic);
    }
    for secret in secrets {
        check_text(&json!({ "login": words[0], secret: words[1] }), &basic, "Authorization: Basic ***");
        check_text(&json!({ "login": words[0], secret: words[1] }), "curl -u an_id:s3c", "curl -u ***");
    }
    // Neither half is one by itself, nor are two that stand in different objects.
    check_text(&json!({ "login": words[0], "pin": words[1] }), "an_id or s3c", "an_id or s3c");
    check_text(&json!([{ "login": words[0] }, { "pin": words[1] }]), &basic, &basic);
}

#[test]
fn values_behind_every_name_of_a_secret() {
    for name in ["pass", "Password", "pwd", "client_secret", "access_token", "apiKey", "sig", "X-Auth", "credential"] {
        let url = json!({ "url": format!("https://h/x?{name}=abcdef&page=ghijkl") });
        check_text(&url, "abcdef ghijkl", "*** ghijkl");
    }
    for name in ["session", "JWT"] {
        check_text(&json!({ "host": format!("a=b;{name}=abcdef;c") }), "abcdef", "***");
    }
    check_text(&json!({ "url": "https://h/x?page=abcdef" }), "abcdef", "abcdef");
}

#[test]
fn what_is_long_enough_to_be_a_secret() {
    let cases = [
        (json!({"pin": "abcde"}), "abcde", "abcde"),
        (json!({"pin": "abcdef"}), "abcdef", "***"),
        // Characters count, not bytes.
        (json!({"pin": "ééééé"}), "ééééé", "ééééé"),
        (json!({"pin": "éééééé"}), "éééééé", "***"),
        (json!({"key": "first line\nabcde\nabcdef"}), "abcde, abcdef", "abcde, ***"),
        (json!({"pin": 12345}), "12345", "12345"),
        (json!({"pin": 123456}), "123456", "***"),
        (json!({"pin": -12345}), "12345", "12345"),
        (json!({"pin": 1234.5}), "1234.5", "1234.5"),
        (json!({"pin": 12345.5}), "12345.5", "***"),
        (json!({"url": "https://h?key=abcde"}), "abcde", "abcde"),
        (json!({"url": "https://h?key=abcdef"}), "abcdef", "***"),
        (json!({"url": "https://abcde@h"}), "abcde", "abcde"),
        (json!({"url": "https://abcdef@h"}), "abcdef", "***"),
        (json!({"url": "https://u:abcde@h"}), "abcde u:abcde", "abcde ***"),
        (json!({"url": "https://u:abcdef@h"}), "abcdef u:abcdef", "*** u:***"),
        // A part of a path is a key if it is long, and has letters and digits.
        (json!({"url": "https://h/abcdefghijklmnopqr1"}), "abcdefghijklmnopqr1", "abcdefghijklmnopqr1"),
        (json!({"url": "https://h/abcdefghijklmnopqrs1"}), "abcdefghijklmnopqrs1", "***"),
        (json!({"url": "https://h/x/abcdefghijklmnopqrs1?y"}), "abcdefghijklmnopqrs1", "***"),
        (json!({"url": "https://h/x/abcdefghijklmnopqrs1#y"}), "abcdefghijklmnopqrs1", "***"),
        (json!({"url": "https://h/x?abcdefghijklmnopqrs1"}), "abcdefghijklmnopqrs1", "abcdefghijklmnopqrs1"),
        (json!({"url": "https://h/abcdefghijklmnopqrstu"}), "abcdefghijklmnopqrstu", "abcdefghijklmnopqrstu"),
        (json!({"url": "https://h/01234567890123456789"}), "01234567890123456789", "01234567890123456789"),
    ];
    for (credential, text, expected) in cases {
        check_text(&credential, text, expected);
    }
}

#[test]
fn where_what_is_named_secret_begins_and_ends() {
    for separator in [" ", "\n", "\t", "?", "&", ";", ",", "\"", "'"] {
        let value = format!("a=1{separator}key=abcdef{separator}b=ghijkl");
        check_text(&json!({ "url": value }), "1 abcdef ghijkl", "1 *** ghijkl");
    }
    check_text(&json!({"url": "key=abc=def"}), "abc=def", "***");
    for end in [" ", "\n", "\"", "'", "<", ">"] {
        let value = format!("see https://one:abcdef@h{end}two:ghijkl@h");
        check_text(&json!({ "url": value }), "abcdef ghijkl", "*** ghijkl");
    }
    // A port is no password, and what follows a host is none either.
    check_text(&json!({"url": "https://h:1234/a:ghijkl@h"}), "ghijkl 1234/a:ghijkl", "ghijkl 1234/a:ghijkl");
    check_text(&json!({"url": "https://h/ghijkl@h"}), "ghijkl", "ghijkl");
}

#[test]
fn what_is_looked_for_in_a_value_is_bounded() {
    let urls =
        |count: usize| (0..count).map(|at| format!("x://u:secret{at} @h x://u:passwd{at}@h ")).collect::<String>();
    let it = redactor(&json!({ "url": urls(9) }));
    assert_eq!(it.text("passwd0 passwd3 passwd4 passwd8"), "*** *** passwd4 passwd8", "eight URLs");
    for (length, expected) in [(SEARCHED - 20, "***"), (SEARCHED, "abcdef")] {
        let value = format!("{} key=abcdef", "x".repeat(length));
        check_text(&json!({ "url": value }), "abcdef", expected);
    }
    for (length, expected) in [(LONGEST_NAME, "***"), (LONGEST_NAME + 1, "abc:def")] {
        let name = "n".repeat(length - 3) + "abc";
        let it = redactor(&json!({ "user": name, "pin": "def" }));
        assert_eq!(it.text(&format!("{name}:def")).ends_with("***"), expected == "***", "{length}");
    }
    let names: Map = [("user", "a1"), ("username", "a2"), ("email", "a3"), ("login", "a4"), ("id", "a5")]
        .into_iter()
        .chain([("client_id", "a6"), ("account_sid", "a7"), ("api_key", "a8"), ("apikey", "a9"), ("pin", "a pin")])
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let it = redactor(&Value::Object(names));
    assert_eq!(it.text("a1:a pin, a8:a pin, a9:a pin"), "***, ***, a9:a pin", "eight names");
    // No name, no login.
    check_text(&json!({"user": "", "password": "abcde"}), ":abcde", ":abcde");
    check_text(&json!({"user": "abcde", "password": ""}), "abcde:", "abcde:");
}

#[test]
fn what_is_left_out_is_told_by_its_kind() {
    let told = |gaps: Gaps| gaps.to_string();
    let head = "The run's credentials are too large for all of them to be masked in logs: ";
    let gaps = |values, lines, encodings, long| Gaps { values, lines, encodings, long };
    for (gaps, expected) in [
        (gaps(1, 0, 0, 0), "1 values are not masked"),
        (gaps(0, 0, 2, 0), "2 values are not masked where they are base64 or hexadecimal"),
        (gaps(0, 3, 0, 0), "3 single lines of values are not masked"),
        (gaps(0, 0, 0, 4), "4 values are longer than 4 KiB, and masked only from their beginning or line by line"),
        (gaps(5, 6, 0, 0), "5 values are not masked; 6 single lines of values are not masked"),
    ] {
        assert_eq!(told(gaps), format!("{head}{expected}"));
    }
    let long = |length: usize| redactor(&json!({ "key": "k".repeat(length) })).gaps().map(|gaps| gaps.long);
    assert_eq!((long(4 * 1024), long(4 * 1024 + 1)), (None, Some(1)));
}

#[test]
fn parts_for_which_there_is_no_room_are_counted_like_whole_values() {
    let left_out = |last: &str| {
        // Short ones take what the long ones leave.
        let long = (0..200).map(|number| format!("{number:04}").repeat(1_024));
        let many: Vec<String> = long.chain((0..200).map(|number| format!("s-{number:04}"))).collect();
        redactor(&json!({ "keys": many, "last": last })).gaps().expect("they are too many").values
    };
    let whole = left_out("a value");
    assert_eq!(left_out("to https://host/"), whole);
    assert_eq!(left_out("to https://bob:hunter2@host/"), whole + 1, "a password");
    assert_eq!(
        left_out("to https://a.user.of.a.rather.long.name.at.an.institute:x@host/"),
        whole + 1,
        "a short one, which counts with its user"
    );
    assert_eq!(left_out("password=hunter2"), whole + 1, "what is named");
}

#[test]
fn lines_of_a_value_are_found_without_their_indentation() {
    let key = json!({ "key": "  first line\r\n\tsecond line  \n   \n  tiny  " });
    check_text(&key, "a first line, a second line, tiny", "a ***, a ***, tiny");
}

#[test]
fn both_alphabets_of_base64() {
    let token = json!({ "token": "\u{7f}?>~~~\u{7f}?>~~~" });
    check_text(&token, "a fz8+fn5+fz8+fn5+ b", "a *** b");
    check_text(&token, "a fz8-fn5-fz8-fn5- b", "a *** b");
}

#[test]
fn escaped_forms() {
    let secret = json!({"password": "p@ss \"w<o>rd\"&é"});
    let forms = [
        "p%40ss%20%22w%3Co%3Erd%22%26%C3%A9",
        "p%40ss+%22w%3co%3erd%22%26%c3%a9",
        "p%2540ss%2520%2522w%253Co%253Erd%2522%2526%25C3%25A9",
        "p@ss%20%22w%3Co%3Erd%22&%C3%A9",
        r#"p@ss \"w<o>rd\"&é"#,
        r#"p@ss \\\"w<o>rd\\\"&\\u00e9"#,
        r#"p@ss \u0022w\u003co\u003erd\u0022\u0026\u00e9"#,
        "p@ss &quot;w&lt;o&gt;rd&quot;&amp;é",
        "p&#64;ss &#34;w&#x3c;o&#x3E;rd&#34;&amp;&#233;",
        "p@ss\n\"w<o>rd\"&é",
        "p@ss \\\n  \"w<o>rd\"&é",
        "p@s' +\n  's \"w<o>rd\"&é",
        r#"p@ss \"w<o>r\nd\"&é"#,
    ];
    for form in forms {
        check_text(&secret, &format!("a {form} b"), "a *** b");
    }
    check(&secret, r#"["https://x/?p=p%40ss%20%22w%3Co%3Erd%22%26%C3%A9"]"#, r#"["https://x/?p=***"]"#);
}

#[test]
fn keys_that_name_no_secret() {
    for key in ["user", "userName", "EMAIL", "host", "port", "database", "schema", "apiVersion", "baseUrl", "URL"] {
        check(&json!({key: "plain value"}), r#"["plain value"]"#, r#"["plain value"]"#);
    }
    let login = json!({"database": [{"host": "plain value", "pin": "secret!"}, "plain value"]});
    check(&login, r#"["plain value","secret!"]"#, r#"["plain value","***"]"#);
    check(&json!({"urls": "plain value"}), r#"["plain value"]"#, r#"["***"]"#);
}

#[test]
fn secrets_within_urls_and_connection_strings() {
    let cases = [
        (
            "postgres://bob:hunter2@db.example/x",
            "hunter2 postgres://bob:hunter2@db.example/x",
            "*** postgres://bob:***@db.example/x",
        ),
        ("postgres://bob:PASS@h/db", "to postgres://bob:PASS@h/db", "to postgres://***@h/db"),
        ("https://bob:p%40ss-w@h", "p@ss-w p%40ss-w", "*** ***"),
        ("https://bob:p@ss/w@h/x", "p@ss/w", "***"),
        ("https://ghp_token@h/", "https://ghp_token@h/", "https://***@h/"),
        ("https://h/x?user=robert&api_key=abcdef&sslmode=require#f", "robert abcdef require", "robert *** require"),
        ("https://hooks.example/services/T0001/abcdefghij0123456789", "T0001/abcdefghij0123456789", "T0001/***"),
        (
            "https://api.example/a/long-path-of-words",
            "https://api.example/a/long-path-of-words",
            "https://api.example/a/long-path-of-words",
        ),
        ("https://api.example/mail/ann@example.org", "api.example/mail/ann", "api.example/mail/ann"),
        ("https://api.example:443/mail/ann:b@example.org", "api.example:443/mail/ann:b", "api.example:443/mail/ann:b"),
    ];
    for (value, text, expected) in cases {
        check_text(&json!({"base_url": value}), text, expected);
    }
    let connection = json!({"connection": "Server=db;User=sa;Password=hunter2;"});
    check_text(&connection, "login of sa with hunter2 failed", "login of sa with *** failed");
}

#[test]
fn the_longest_secret_wins() {
    let both = json!({"a": "secret", "b": "secret-and-more"});
    check(&both, r#"["secret-and-more secret"]"#, r#"["*** ***"]"#);
}

#[test]
fn plain_text() {
    let it = redactor(&json!({"password": "hunter2"}));
    assert_eq!(it.text("Error: hunter2!"), "Error: ***!");
    assert!(matches!(it.text("nothing"), Cow::Borrowed(_)));
    assert_eq!(Redactor::new([], ["a token"]).text("a token"), "***");
    assert_eq!(Redactor::default().text("a token"), "a token");
}

#[test]
fn the_beginning_of_a_secret_at_a_cut_goes() {
    let it = redactor(&json!({"password": "hunter@2-hunté"}));
    for text in ["hunter@2-hun", "hunter%402-", "hunter%4", "hunter&#6", r"hunter\u00", "hunter@2-hunt\u{fffd}", "h"] {
        assert_eq!(it.cut_text(&format!("xx {text}")), "xx ***", "{text}");
    }
    assert_eq!(it.cut_text("xx hunter@2-hunté x"), "xx *** x");
    assert_eq!(it.cut_text("xx 100 %"), "xx 100 %");
    for length in 1..14 {
        let hex = &"68756e7465724032"[..length];
        assert!(!it.cut_text(&format!("x {hex}")).contains(hex), "{hex}");
    }
}

#[test]
fn long_secrets_are_masked_from_their_beginning_as_far_as_they_go() {
    let secret: String = (0..200_000).map(|number| format!("{number:x}-")).collect();
    let it = redactor(&json!({ "key": secret }));
    assert_eq!(it.text(&format!("a {secret}")), "a ***");
    assert_eq!(it.text(&format!("a {} b", &secret[..100])), "a *** b");
    let base64 = data(&secret);
    assert_eq!(it.text(&format!("a {base64}")), "a ***");
    assert_eq!(it.text(&format!("a {} b", &base64[..100])), "a *** b");
    assert_eq!(it.gaps().map(|gaps| gaps.long), Some(1));
    let lines = redactor(&json!({ "key": secret.replace("-1", "-\n1") }));
    assert_eq!(lines.text("a 12-13-14-15-16-17-18-19- b"), "a 12-13-14-15-16-17-18-19- b");
    assert_eq!(lines.text("a 1ff-200-201-202 b"), "a 1ff-200-201-202 b");
    assert_eq!(lines.text("a 20-21-22-23-24-25-26-27-28-29-2a-2b-2c-2d-2e-2f- b").matches("***").count(), 0);
}

#[test]
fn what_is_kept_of_large_credentials_is_bounded_and_said() {
    let many: Map = (0..178_000).map(|number| (format!("key{number}"), json!(format!("value-{number:08}")))).collect();
    let it = redactor(&Value::Object(many));
    assert_eq!(it.text("a value-00000000 b"), "a *** b");
    let gaps = it.gaps().unwrap();
    assert!(gaps.values > 100_000 && gaps.values < 178_000, "{gaps:?}");
    let told = gaps.to_string();
    assert!(told.contains(&format!("{} values are not masked", gaps.values)), "{told}");
    assert_eq!(redactor(&json!({"password": "hunter2"})).gaps(), None);
}

#[test]
fn so_many_values_find_room() {
    let values = |count: u32| {
        let all: Map = (0..count)
            .map(|number| (format!("key{number}"), json!(format!("{number:04}{}", "x".repeat(96)))))
            .collect();
        redactor(&Value::Object(all))
    };
    assert_eq!(values(200).gaps(), None);
    assert_eq!(values(1_300).gaps().map(|gaps| gaps.values), Some(0));
    assert_eq!(values(200).text(&data(&format!("0199{}", "x".repeat(96)))), "***");
}

#[tokio::test]
async fn large_credentials_are_read_by_another_thread() {
    let large = json!({"filler": "x".repeat(QUICK), "password": "hunter2"});
    let it = Redactor::of_run(vec![Json::encode(&large).unwrap()], "a token".to_owned()).await;
    assert_eq!(it.text("hunter2, a token"), "***, ***");
}

type Map = serde_json::Map<String, Value>;

fn data(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (100_000i64..1_000_000).prop_map(Value::from),
        "[a-c\"\\\\\n]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("[a-c\"\\\\]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn contains(value: &Value, secret: &str) -> bool {
    match value {
        Value::String(text) => text.contains(secret),
        Value::Array(values) => values.iter().any(|value| contains(value, secret)),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains(secret) || contains(value, secret)),
        _ => false,
    }
}

/// The ways in which programs write a text, naively.
fn written(text: &str, how: usize) -> String {
    let bytes = text.bytes();
    match how {
        0 => text.to_owned(),
        1 => Value::from(text).to_string().trim_matches('"').to_owned(),
        2 => bytes
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect(),
        3 => bytes.map(|byte| format!("%{byte:02x}")).collect(),
        4 => text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;"),
        5 => text.chars().map(|it| format!("&#{};", it as u32)).collect(),
        6 => text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
        7 => text.replace(' ', "+"),
        8 => text
            .chars()
            .enumerate()
            .map(|(at, it)| if at % 5 == 4 { format!("\n{it}") } else { it.to_string() })
            .collect(),
        9 => bytes.map(|byte| format!("{byte:02x}")).collect(),
        10 => bytes.map(|byte| format!("{byte:02X}")).collect(),
        11 => data(text),
        12 => data(text).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned(),
        13 => data(text).as_bytes().chunks(8).map(|line| String::from_utf8_lossy(line) + "\r\n").collect(),
        _ => data(&format!("ab{}", text)),
    }
}

/// Which of them may be written anew by another, so that both are undone.
const ESCAPES: Range<usize> = 1..7;

proptest! {
    #[test]
    fn the_result_is_json_without_the_secret(message in any_json(), secret in "[a-c\"\\\\\n]{6,8}") {
        let json = Json::encode(&json!([message, secret, format!("x{secret}")])).unwrap();
        let redacted = redactor(&json!({"s": secret.clone()})).json(json);
        let read: Value = redacted.decode().unwrap();
        prop_assert!(!contains(&read, &secret), "{}", redacted.as_str());
    }

    #[test]
    fn a_secret_is_found_however_it_is_written(
        secret in "[k-q][k-q \"'<>&%+/@\\\\\n:é😀]{4,60}[k-q]",
        before in "[A-G]{0,5}",
        after in "[A-G]{0,5}",
        how in 0..15_usize,
        again in 0..7_usize,
    ) {
        // What is short once it is read is not looked for then.
        prop_assume!(views::unwrapped(&views::canonical(secret.as_bytes())).len() >= MIN_CHARS);
        let once = written(&secret, how);
        let text = if again == 0 || !ESCAPES.contains(&how) { once } else { written(&once, again) };
        let text = format!("{before}.{text}.{after}");
        let it = redactor(&json!({"password": secret}));
        let redacted = it.text(&text).into_owned();
        if how < 9 {
            prop_assert_eq!(redacted, format!("{before}.***.{after}"), "{}", text);
        } else {
            // A character of base64 may be of what stands before, too.
            let left = redacted.replace("***", "");
            prop_assert!(redacted.contains("***") && left.len() <= before.len() + after.len() + 8, "{} in {}", redacted, text);
        }
    }

    #[test]
    fn nothing_else_is_masked(secret in "[k-q]{6,60}", text in "[A-G0-9%&+\\\\\n é\"]{0,200}") {
        let it = redactor(&json!({"password": secret}));
        prop_assert_eq!(it.text(&text), text.as_str());
        // The last characters may be the first ones of one of its forms.
        prop_assert!(text.starts_with(it.cut_text(&text).trim_end_matches(MASK)));
    }

    #[test]
    fn any_text_and_any_cut_are_taken(secret in any::<String>(), text in any::<String>()) {
        let it = redactor(&json!({"password": secret, "url": text}));
        let whole = format!("{text}{secret}");
        it.text(&whole);
        it.cut_text(&whole);
        prop_assert!(it.json(Json::encode(&json!([whole])).unwrap()).decode::<Value>().is_ok());
    }
}
