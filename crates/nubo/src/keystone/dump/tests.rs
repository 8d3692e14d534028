//! What is read of a dump, and what is refused.

use super::*;
use proptest::prelude::*;

const TABLE: &str = "CREATE TABLE `user` (`id` varchar(64) NOT NULL DEFAULT 'a,)', `n` int(11), KEY `n` (`n`,`id`(8))) ENGINE=InnoDB;\n";

fn read(text: &[u8]) -> Result<Vec<(Value, Value)>> {
    let loaded = load(text, &["user", "group"])?;
    let mut statement = loaded.connection.prepare("SELECT id, n FROM user")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What the table holds after these lines.
fn rows(lines: &str) -> Vec<(Value, Value)> {
    read(format!("{TABLE}{lines}").as_bytes()).unwrap_or_else(|error| panic!("{lines}: {error:#}"))
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn values_are_those_of_mariadb() {
    let cases: &[(&str, Value)] = &[
        ("'plain'", text("plain")),
        (r#"'It\'s \"x\" \\ \n\r\t\0\b\Z \% \_ \q'"#, text("It's \"x\" \\ \n\r\t\0\x08\x1a \\% \\_ q")),
        ("'it''s'", text("it's")),
        ("\"it's \"\"so\"\"\"", text("it's \"so\"")),
        ("'-- no comment, /* nor this */ # nor that; ('", text("-- no comment, /* nor this */ # nor that; (")),
        ("'two\nlines'", text("two\nlines")),
        ("'云🔒'", text("云🔒")),
        ("0x61C3A9", text("aé")),
        ("x'61'", text("a")),
        ("_binary 'b'", text("b")),
        ("_utf8mb4 0x63", text("c")),
        ("''", text("")),
        ("NULL", Value::Null),
        ("null", Value::Null),
        ("-7", Value::Integer(-7)),
        ("9223372036854775807", Value::Integer(i64::MAX)),
        ("TRUE", Value::Integer(1)),
        ("1.5", Value::Real(1.5)),
        ("-2e-1", Value::Real(-0.2)),
    ];
    for (written, value) in cases {
        let found = rows(&format!("INSERT INTO `user` VALUES ({written}, 1);"));
        assert_eq!(found, [(value.clone(), Value::Integer(1))], "{written}");
    }
}

#[test]
fn statements_of_dumps_are_read_and_others_tables_counted() {
    let dump = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump\n--\n# also\n/* a\nblock ' */\n\
        /*!40101 SET NAMES utf8mb4 */;\n/*!40101 SET SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n\
        CREATE DATABASE /*!32312 IF NOT EXISTS*/ `keystone` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\nUSE `keystone`;\n\
        DROP TABLE IF EXISTS `token`;\nCREATE TABLE IF NOT EXISTS `token` (`id` int, `blob` blob);\n\
        LOCK TABLES `token` WRITE;\n/*!40000 ALTER TABLE `token` DISABLE KEYS */;\n\
        INSERT INTO `token` VALUES (1,'(;'),(2,_binary '\u{fffd}'),(3,NULL);\nINSERT INTO `token` VALUES (4,f(1));\n\
        /*!40000 ALTER TABLE `token` ENABLE KEYS */;\nUNLOCK TABLES;\n;\n\
        DROP TABLE IF EXISTS `group`;\nCREATE TABLE `group` (`id` int, `na``me\"x` text, PRIMARY KEY (`id`));\n\
        INSERT INTO `group` VALUES (1,'g');\nCOMMIT;\n";
    let more = "INSERT IGNORE INTO `user` (`n`, `id`) VALUES\n(1,'a'),\n(2,'b');\nINSERT INTO `user` VALUES ('c',3)";
    let loaded = load(format!("{dump}{TABLE}{more};\n").as_bytes(), &["user", "group"]).unwrap();
    assert_eq!(loaded.skipped, BTreeMap::from([("token".to_owned(), 4)]));
    let one = |sql: &str| loaded.connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one("SELECT group_concat(id || n, ',') FROM user"), "a1,b2,c3");
    assert_eq!(one("SELECT \"na`me\"\"x\" FROM \"group\""), "g");
    assert!(loaded.connection.prepare("SELECT * FROM token").is_err(), "it is not kept");
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let cases: &[(&str, &str)] = &[
        ("INSERT INTO `user` VALUES (1);", "2 values"),
        ("INSERT INTO `user` VALUES (1,2,3);", "2 values"),
        ("INSERT INTO `user` VALUES (1,2)", "the end of the file"),
        ("INSERT INTO `user` VALUES (1,2) ON DUPLICATE KEY UPDATE n = 1;", "'ON' stands there"),
        ("INSERT INTO `user` VALUES (1,(SELECT 1));", "a value is expected"),
        ("INSERT INTO `user` VALUES (now(),1);", "'now' stands there"),
        ("INSERT INTO `user` SELECT 1, 2;", "VALUES is expected"),
        ("INSERT INTO `user` (`id`,`id`) VALUES (1,2);", "comes twice"),
        ("INSERT INTO `user` (`id`,`x`) VALUES (1,2);", "is no column"),
        ("INSERT INTO user VALUES (1,2);", "in backticks"),
        ("INSERT INTO `role` VALUES (1,2);", "before the table"),
        ("INSERT INTO `user` VALUES ('a", "line 2 does not end"),
        ("INSERT INTO `user` VALUES ('a\\", "line 2 does not end"),
        ("INSERT INTO `user` VALUES (0x123,1);", "half a byte"),
        ("INSERT INTO `user` VALUES (0xzz,1);", "half a byte"),
        ("INSERT INTO `user` VALUES (0xff,1);", "not UTF-8"),
        ("INSERT INTO `user` VALUES (1x,1);", "a number is none"),
        ("INSERT INTO `user` VALUES (99999999999999999999,1);", "a number is none"),
        ("INSERT INTO `user` VALUES (1e999,1);", "a number is none"),
        ("INSERT INTO `user` VALUES (b'1',1);", "'b' stands there"),
        ("CREATE TABLE `user` (`id` int);", "made twice"),
        ("CREATE TABLE `group` (PRIMARY KEY (`id`));", "no columns"),
        ("CREATE TABLE `group` (id int);", "in backticks"),
        ("CREATE TABLE `group` (`id` int, `id` int);", "`group`"),
        ("CREATE TABLE `group` (`id` int", "does not end"),
        ("CREATE TABLE `group` LIKE `user`;", "'(' is expected"),
        ("CREATE VIEW `v` AS SELECT 1;", "tables alone"),
        ("/*!50001 CREATE VIEW `v` AS SELECT 1 */;", "tables alone"),
        ("/*!50003 CREATE TRIGGER `t` */;", "tables alone"),
        ("DELIMITER ;;", "--skip-triggers"),
        ("DELETE FROM `user`;", "begins no statement"),
        ("ATTACH DATABASE 'x' AS y;", "begins no statement"),
        ("REPLACE INTO `user` VALUES (1,2);", "begins no statement"),
        ("DROP TABLE `user`;", "after it was made"),
        ("ALTER TABLE `user` DROP COLUMN `n`;", "not understood"),
        ("SET NAMES latin1;", "character set"),
        ("/*!40101 SET NAMES binary */;", "character set"),
        ("SET SQL_MODE='STRICT,NO_BACKSLASH_ESCAPES';", "NO_BACKSLASH_ESCAPES"),
        ("SET sql_mode = 'ansi';", "ANSI"),
        ("USE `a`; USE `b`;", "several databases"),
        ("/*!40101 SET x = 1", "does not end"),
        ("/*!40101 /*!40101 */ */", "within another"),
        ("/* no end", "does not end"),
        ("'a';", "begins no statement"),
        ("\u{1}", "0x01"),
        ("`", "does not end"),
    ];
    for (written, said) in cases {
        let error = format!("{:#}", read(format!("{TABLE}{written}").as_bytes()).unwrap_err());
        assert!(error.contains(said) && error.contains("line 2 of the dump"), "{written}: {error}");
    }
    // What may be a secret is not shown.
    let error = read(format!("{TABLE}INSERT INTO `user` VALUES (1 'hush');").as_bytes()).unwrap_err();
    assert!(!format!("{error:#}").contains("hush"), "{error:#}");
    let mut bytes = format!("{TABLE}INSERT INTO `user` VALUES ('").into_bytes();
    bytes.extend_from_slice(b"\xff',1);");
    assert!(format!("{:#}", read(&bytes).unwrap_err()).contains("not UTF-8"));
}

#[test]
fn sizes_have_bounds() {
    let wide = |count: usize| (0..count).map(|n| format!("`c{n}` int")).collect::<Vec<_>>().join(",");
    let long = "a".repeat(5 << 20);
    let cases = [
        (format!("CREATE TABLE `group` ({});", wide(COLUMNS + 1)), "columns"),
        (format!("INSERT INTO `user` VALUES ('{long}',1);"), "bytes"),
        (format!("INSERT INTO `user` VALUES (0x{long},1);"), "bytes"),
        (format!("INSERT INTO `user` VALUES ({},1);", "1".repeat(300)), "digits"),
        (format!("CREATE TABLE `{}` (`a` int);", "n".repeat(300)), "a name"),
        (";".repeat(STATEMENTS + 1), "statements"),
        ((0..=TABLES).map(|n| format!("CREATE TABLE `t{n}` (`a` int);")).collect(), "tables"),
        (format!("-- {}", " ".repeat(lexer::LINE_BYTES)), "bytes"),
    ];
    for (written, said) in cases {
        let error = format!("{:#}", read(format!("{TABLE}{written}").as_bytes()).unwrap_err());
        assert!(error.contains("more than") && error.contains(said), "{said}: {error}");
    }
    let deep = format!("INSERT INTO `token` VALUES {}1", "(".repeat(100_000));
    let written = format!("{TABLE}CREATE TABLE `token` (`a` int);{deep}");
    assert!(read(written.as_bytes()).is_err(), "and no stack is needed for it");
}

#[test]
fn dumps_are_told_by_their_beginning() {
    for head in ["-- MySQL dump", "/*M!999999\\- enable", "/*!40101 SET", "\n\nCREATE TABLE", "DROP TABLE"] {
        assert!(looks_like(head.as_bytes()), "{head}");
    }
    for head in ["", "no database", "\u{1f}\u{8b}", "\u{feff}-- MySQL", "SQLite format 3\0", "SETTING", "{}"] {
        assert!(!looks_like(head.as_bytes()), "{head}");
    }
}

/// As `mariadb-dump` writes it.
fn escaped(text: &str) -> String {
    let mut all = String::from("'");
    for letter in text.chars() {
        match letter {
            '\0' => all.push_str("\\0"),
            '\n' => all.push_str("\\n"),
            '\r' => all.push_str("\\r"),
            '\u{1a}' => all.push_str("\\Z"),
            '\'' | '"' | '\\' => all.extend(['\\', letter]),
            other => all.push(other),
        }
    }
    all + "'"
}

proptest! {
    #[test]
    fn any_text_comes_back(texts in proptest::collection::vec(("\\PC{0,40}|[\\x00-\\x7f]{0,40}", any::<i64>()), 1..6)) {
        let all: Vec<String> = texts.iter().map(|(text, n)| format!("({},{n})", escaped(text))).collect();
        let wanted: Vec<_> = texts.iter().map(|(one, n)| (text(one), Value::Integer(*n))).collect();
        prop_assert_eq!(rows(&format!("INSERT INTO `user` VALUES {};", all.join(",\n"))), wanted);
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[TABLE.as_bytes(), b"INSERT INTO `user` VALUES (", &bytes].concat());
    }

    #[test]
    fn bent_dumps_are_taken_without_a_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "INSERT INTO ", "`user`", " VALUES ", "(", ")", ",", ";", "'", "\\", "\"", "`", "/*", "/*!40101 ", "*/", "-- ",
            "\n", "NULL", "0x", "-1", "CREATE TABLE ", "`group`", "SET ", "NAMES ", "_binary ", "1.", "e-", "x'", "#", "USE ",
        ]), 0..40)) {
        let _ = read(words.concat().as_bytes());
        let _ = read(format!("{TABLE}{}", words.concat()).as_bytes());
    }
}
