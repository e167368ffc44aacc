//! Kubernetes' libraries.

use std::sync::Arc;

use evenkeel_cel::{
    AuthorizationQuery, Authorizer, Budget, Decision, Env, Schema, Value, authorizer_type,
    authorizer_value,
};

use super::{eval, fail, hold};

#[test]
fn lists_and_sets() {
    hold(&[
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted()",
        "[1, 2].sum() == 3 && [1.5, 2.0].sum() == 3.5 && [].sum() == 0",
        "[3, 1, 2].min() == 1 && ['a', 'c'].max() == 'c'",
        "[1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(9) == -1",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
    ]);
    fail(&[("[].min() == 1", "min called on empty list")]);
}

#[test]
fn text() {
    hold(&[
        "'tacocat'.charAt(4) == 'c' && 'abc'.indexOf('c') == 2 && 'aba'.lastIndexOf('a') == 2",
        "'ABC'.lowerAscii() == 'abc' && 'aé'.upperAscii() == 'Aé' && '  x '.trim() == 'x'",
        "'a-b-c'.replace('-', '+') == 'a+b+c' && 'a-b-c'.replace('-', '', 1) == 'ab-c'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.split('') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b'",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "'%s is %d, %.2f, %x'.format(['a', dyn(1), dyn(2.5), dyn(255)]) == 'a is 1, 2.50, ff'",
        "strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'a1b2'.findAll('[0-9]', 1) == ['1'] && 'foobar'.matches('^foo') && 'a[b'.matches('[[]')",
    ]);
    fail(&[("'abc'.charAt(9) == ''", "index out of range: 9")]);
}

#[test]
fn addresses() {
    hold(&[
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('10.0.0.1') && !isIP('1.2.3')",
        "ip.isCanonical('::1') && !ip.isCanonical('2001:db8:0:0:0:0:0:1')",
        "ip('8.8.8.8').isGlobalUnicast() && ip('169.254.1.1').isLinkLocalUnicast()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8')",
        "cidr('fd00::/64').prefixLength() == 64 && cidr('10.0.0.1/8').ip() == ip('10.0.0.1')",
        "string(ip('::1')) == '::1' && string(cidr('10.0.0.0/8')) == '10.0.0.0/8' && !isCIDR('10.0.0.0/33')",
    ]);
}

#[test]
fn quantities_and_versions() {
    hold(&[
        "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('50Mi').isGreaterThan(quantity('50M'))",
        "quantity('1500m').add(quantity('500m')).asInteger() == 2 && quantity('5').sub(3).asInteger() == 2",
        "quantity('1k').asApproximateFloat() == 1000.0 && !quantity('100m').isInteger()",
        "isQuantity('1e3') && !isQuantity('1z') && quantity('1e3') == quantity('1000')",
        "sign(quantity('-1')) == -1",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').compareTo(semver('1.0.0')) == -1",
        "isSemver('v1.0', true) && !isSemver('v1.0') && semver('v1.0', true).major() == 1",
    ]);
    fail(&[
        (
            "quantity('100m').asInteger() == 0",
            "cannot convert value to integer",
        ),
        (
            "quantity('1z') == quantity('1')",
            "unable to parse quantity's suffix",
        ),
    ]);
}

#[test]
fn urls_and_formats() {
    hold(&[
        "url('https://example.com:80/a b?k=1&k=2&l=x').getQuery() == {'k': ['1', '2'], 'l': ['x']}",
        "url('https://example.com:80/').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('/path').getScheme() == '' && isURL('https://a') && !isURL('../a') && !isURL('a')",
        "!format.dns1123Label().validate('my-name').hasValue()",
        "format.dns1123Label().validate('My').hasValue()",
        "format.named('uuid').hasValue() && !format.named('x').hasValue()",
        "!format.qualifiedName().validate('example.com/my_name').hasValue()",
        "format.date().validate('2021-13-01') == optional.of(['invalid date'])",
    ]);
}

#[derive(Debug)]
struct OnlyPods;

impl Authorizer for OnlyPods {
    fn decide(&self, query: &AuthorizationQuery) -> Decision {
        let allowed =
            query.resource == "pods" && query.namespace == "default" && query.verb == "get";
        Decision {
            allowed,
            reason: "pods only".into(),
            error: String::new(),
        }
    }
}

#[test]
fn authorizers_are_asked() {
    let env = Env::kubernetes().with_variable("authorizer", Schema::simple(authorizer_type()));
    for (source, wanted) in [
        (
            "authorizer.group('').resource('pods').namespace('default').check('get').allowed()",
            true,
        ),
        (
            "authorizer.group('').resource('pods').check('get').allowed()",
            false,
        ),
        (
            "authorizer.path('/healthz').check('get').reason() == 'pods only'",
            true,
        ),
        (
            "authorizer.serviceAccount('a', 'b').group('apps').resource('x').subresource('y').name('z')\
          .check('list').errored()",
            false,
        ),
    ] {
        let program = env.compile(source).unwrap();
        let variables = [("authorizer", authorizer_value(Arc::new(OnlyPods)))];
        let value = program.evaluate(&variables, &mut Budget::default());
        assert_eq!(value, Ok(Value::Bool(wanted)), "{source}");
    }
    assert!(eval("1 == 1").is_ok());
}
