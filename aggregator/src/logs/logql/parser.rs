//! Tokens → [`super::ast`].

use super::ast::{
    Aggregation, Compare, Expr, Grouping, LabelFilter, LineFilter, LogExpr, Matcher, MetricExpr, Needle,
    Operator, Quantity, RangeFunction, Selector, Stage, TextTest,
};
use super::lexer::{Spanned, Token, lex};
use super::{MAX_QUERY, ParseError, regex};

/// Brackets within brackets.
const MAX_DEPTH: usize = 32;
/// Stages of one pipeline, and conditions of one selector.
const MAX_PARTS: usize = 64;
/// The longest range, about 30 years.
const MAX_RANGE_NS: f64 = 1e18;

const NO_MATCHER: &str = "queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will";
/// Stages of Loki's that are not understood here.
const FOREIGN_STAGES: [&str; 8] =
    ["line_format", "label_format", "pattern", "regexp", "unpack", "unwrap", "decolorize", "distinct"];

/// Any query.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text)?;
    let expr = if parser.is_log() { Expr::Log(parser.log()?) } else { Expr::Metric(parser.metric(0)?) };
    parser.end()?;
    Ok(expr)
}

/// A query for lines.
pub fn parse_log(text: &str) -> Result<LogExpr, ParseError> {
    match parse(text)? {
        Expr::Log(log) => Ok(log),
        Expr::Metric(_) => Err(ParseError::Whole("only log selector is supported".to_owned())),
    }
}

/// A selector alone.
pub fn parse_selector(text: &str) -> Result<Selector, ParseError> {
    let mut parser = Parser::new(text)?;
    let selector = parser.selector()?;
    parser.end()?;
    Ok(selector)
}

/// The labels of a pushed stream: `{a="b", c="d"}`.
pub fn parse_labels(text: &str) -> Result<Vec<(String, String)>, ParseError> {
    let mut parser = Parser::new(text)?;
    let matchers = parser.matchers()?;
    parser.end()?;
    matchers
        .into_iter()
        .map(|matcher| match matcher.test {
            TextTest::Equal(value) => Ok((matcher.name, value)),
            _ => Err(ParseError::Whole(format!(
                "the label {} needs a value: {}=\"…\"",
                matcher.name, matcher.name
            ))),
        })
        .collect()
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_QUERY {
            return Err(ParseError::Whole(format!(
                "the query is {} bytes long, {MAX_QUERY} are allowed",
                text.len()
            )));
        }
        Ok(Self { tokens: lex(text)?, at: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, by: usize) -> &Token {
        self.tokens.get(self.at + by).or(self.tokens.last()).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn word(&self) -> Option<&str> {
        match self.peek() {
            Token::Identifier(word) => Some(word),
            _ => None,
        }
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// An error at the token that comes next.
    fn error(&self, message: impl Into<String>) -> ParseError {
        let place = self.tokens.get(self.at).or(self.tokens.last());
        let (line, col) = place.map_or((1, 1), |spanned| (spanned.line, spanned.col));
        ParseError::At { line, col, message: message.into() }
    }

    fn unexpected(&self, wanted: &str) -> ParseError {
        let name = self.peek().name();
        if wanted.is_empty() {
            self.error(format!("syntax error: unexpected {name}"))
        } else {
            self.error(format!("syntax error: unexpected {name}, expecting {wanted}"))
        }
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.accept(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn identifier(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Identifier(_) => match self.next() {
                Token::Identifier(word) => Ok(word),
                _ => Err(self.unexpected("IDENTIFIER")),
            },
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn string(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::String(_) => match self.next() {
                Token::String(text) => Ok(text),
                _ => Err(self.unexpected("STRING")),
            },
            _ => Err(self.unexpected("STRING")),
        }
    }

    fn end(&self) -> Result<(), ParseError> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("")) }
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels of nesting")));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    /// A regular expression; an error at the token before.
    fn regex(&mut self, pattern: &str, whole: bool) -> Result<regex::Regex, ParseError> {
        regex(pattern, whole).map_err(|message| {
            self.at = self.at.saturating_sub(1);
            self.error(message)
        })
    }

    // Lines.

    fn is_log(&self) -> bool {
        // Brackets around a query for lines: `({…} |= "x")`.
        let open = (0..).take_while(|&by| matches!(self.ahead(by), Token::Sign("("))).count();
        matches!(self.ahead(open), Token::Sign("{"))
    }

    fn log(&mut self) -> Result<LogExpr, ParseError> {
        if self.accept("(") {
            let log = self.deeper(Self::log)?;
            self.expect(")")?;
            return Ok(log);
        }
        let selector = self.selector()?;
        let stages = self.stages()?;
        Ok(LogExpr { selector, stages })
    }

    fn selector(&mut self) -> Result<Selector, ParseError> {
        let matchers = self.matchers()?;
        if matchers.iter().all(|matcher| matcher.test.holds("")) {
            return Err(ParseError::Whole(NO_MATCHER.to_owned()));
        }
        Ok(Selector { matchers })
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, ParseError> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        while !self.is("}") {
            if matchers.len() >= MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} label matchers")));
            }
            let name = self.identifier()?;
            let test = self.text_test()?;
            matchers.push(Matcher { name, test });
            if !self.accept(",") && !self.is("}") {
                return Err(self.unexpected("} or ,"));
            }
        }
        self.expect("}")?;
        Ok(matchers)
    }

    fn text_test(&mut self) -> Result<TextTest, ParseError> {
        let sign = match self.peek() {
            Token::Sign(sign @ ("=" | "!=" | "=~" | "!~")) => *sign,
            _ => return Err(self.unexpected("= or != or =~ or !~")),
        };
        self.at += 1;
        let text = self.string()?;
        Ok(match sign {
            "=" => TextTest::Equal(text),
            "!=" => TextTest::NotEqual(text),
            "=~" => TextTest::Match(self.regex(&text, true)?),
            _ => TextTest::NotMatch(self.regex(&text, true)?),
        })
    }

    fn stages(&mut self) -> Result<Vec<Stage>, ParseError> {
        let mut stages = Vec::new();
        loop {
            let sign = match self.peek() {
                Token::Sign(sign @ ("|=" | "!=" | "|~" | "!~" | "|" | "|>" | "!>")) => *sign,
                _ => return Ok(stages),
            };
            if stages.len() >= MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} stages")));
            }
            match sign {
                "|" => {
                    self.at += 1;
                    stages.push(self.stage()?);
                }
                "|>" | "!>" => return Err(self.error("pattern filters (|> and !>) are not supported here")),
                sign => {
                    self.at += 1;
                    stages.push(Stage::Line(self.line_filter(sign)?));
                }
            }
        }
    }

    fn line_filter(&mut self, sign: &str) -> Result<LineFilter, ParseError> {
        let mut any = Vec::new();
        loop {
            let text = self.string()?;
            any.push(if sign.ends_with('~') {
                Needle::Regex(self.regex(&text, false)?)
            } else {
                Needle::Text(text)
            });
            let more = self.word() == Some("or") && matches!(self.ahead(1), Token::String(_));
            if !more || any.len() >= MAX_PARTS {
                return Ok(LineFilter { any, negated: sign.starts_with('!') });
            }
            self.at += 1;
        }
    }

    fn stage(&mut self) -> Result<Stage, ParseError> {
        let compared =
            matches!(self.ahead(1), Token::Sign("=" | "!=" | "=~" | "!~" | "==" | ">" | ">=" | "<" | "<="));
        let word = if compared { None } else { self.word().map(str::to_owned) };
        match word.as_deref() {
            Some(parser @ ("json" | "logfmt")) => {
                self.at += 1;
                if !matches!(self.peek(), Token::Sign(sign) if *sign != "-" && *sign != "(")
                    && *self.peek() != Token::End
                {
                    return Err(self.error(format!("parameters of {parser} are not supported here")));
                }
                Ok(if parser == "json" { Stage::Json } else { Stage::Logfmt })
            }
            Some("drop") => Ok(Stage::Drop(self.names()?)),
            Some("keep") => Ok(Stage::Keep(self.names()?)),
            Some(foreign) if FOREIGN_STAGES.contains(&foreign) => {
                Err(self.error(format!("the stage {foreign} is not supported here")))
            }
            _ => Ok(Stage::Label(self.label_filter()?)),
        }
    }

    /// The word before and a list of names.
    fn names(&mut self) -> Result<Vec<String>, ParseError> {
        self.at += 1;
        let mut names = vec![self.identifier()?];
        while self.accept(",") {
            if names.len() >= MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} labels")));
            }
            names.push(self.identifier()?);
        }
        Ok(names)
    }

    fn label_filter(&mut self) -> Result<LabelFilter, ParseError> {
        let mut left = self.label_and()?;
        let mut count = 0;
        while self.accept_word("or") {
            count += 1;
            if count > MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} conditions")));
            }
            left = LabelFilter::Or(Box::new(left), Box::new(self.label_and()?));
        }
        Ok(left)
    }

    fn label_and(&mut self) -> Result<LabelFilter, ParseError> {
        let mut left = self.label_term()?;
        let mut count = 0;
        while self.accept_word("and") || self.accept(",") {
            count += 1;
            if count > MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} conditions")));
            }
            left = LabelFilter::And(Box::new(left), Box::new(self.label_term()?));
        }
        Ok(left)
    }

    fn label_term(&mut self) -> Result<LabelFilter, ParseError> {
        if self.accept("(") {
            let inner = self.deeper(Self::label_filter)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.identifier()?;
        if matches!(self.ahead(1), Token::String(_)) {
            return Ok(LabelFilter::Text { name, test: self.text_test()? });
        }
        let compare = self.comparison().ok_or_else(|| self.unexpected("= or != or =~ or !~ or > or <"))?;
        let negative = self.accept("-");
        let signed = |value: f64| if negative { -value } else { value };
        let value = match *self.peek() {
            Token::Number(number) => Quantity::Number(signed(number)),
            Token::Duration(ns) => Quantity::Duration(signed(ns)),
            Token::Bytes(bytes) => Quantity::Bytes(signed(bytes)),
            _ => return Err(self.unexpected("NUMBER or DURATION or BYTES or STRING")),
        };
        self.at += 1;
        Ok(LabelFilter::Number { name, compare, value })
    }

    /// Takes a sign that compares numbers.
    fn comparison(&mut self) -> Option<Compare> {
        let compare = match self.peek() {
            Token::Sign("=" | "==") => Compare::Equal,
            Token::Sign("!=") => Compare::NotEqual,
            Token::Sign(">") => Compare::Greater,
            Token::Sign(">=") => Compare::GreaterEqual,
            Token::Sign("<") => Compare::Less,
            Token::Sign("<=") => Compare::LessEqual,
            _ => return None,
        };
        self.at += 1;
        Some(compare)
    }

    // Metrics.

    /// What binds at least this strongly.
    fn metric(&mut self, binding: u8) -> Result<MetricExpr, ParseError> {
        let mut left = self.deeper(Self::metric_term)?;
        loop {
            let Some((operator, strength)) = self.operator() else { return Ok(left) };
            if strength < binding {
                return Ok(left);
            }
            self.at += 1;
            let operator = match operator {
                Operator::Compare { compare, .. } => {
                    Operator::Compare { compare, keep: !self.accept_word("bool") }
                }
                other => other,
            };
            if matches!(self.word(), Some("on" | "ignoring" | "group_left" | "group_right")) {
                return Err(
                    self.error("matching by on, ignoring, group_left and group_right is not supported here")
                );
            }
            // `^` binds to the right.
            let right_binding = if operator == Operator::Power { strength } else { strength + 1 };
            let right = self.deeper(|this| this.metric(right_binding))?;
            left = MetricExpr::Binary { operator, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        let compare = |compare| Some((Operator::Compare { compare, keep: true }, 1));
        match self.peek() {
            Token::Sign("==") => compare(Compare::Equal),
            Token::Sign("!=") => compare(Compare::NotEqual),
            Token::Sign(">") => compare(Compare::Greater),
            Token::Sign(">=") => compare(Compare::GreaterEqual),
            Token::Sign("<") => compare(Compare::Less),
            Token::Sign("<=") => compare(Compare::LessEqual),
            Token::Sign("+") => Some((Operator::Add, 2)),
            Token::Sign("-") => Some((Operator::Subtract, 2)),
            Token::Sign("*") => Some((Operator::Multiply, 3)),
            Token::Sign("/") => Some((Operator::Divide, 3)),
            Token::Sign("%") => Some((Operator::Modulo, 3)),
            Token::Sign("^") => Some((Operator::Power, 4)),
            _ => None,
        }
    }

    fn metric_term(&mut self) -> Result<MetricExpr, ParseError> {
        if self.accept("(") {
            let inner = self.metric(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if let Some(number) = self.signed_number() {
            return Ok(MetricExpr::Number(number));
        }
        let word = self.word().map(str::to_owned);
        match word.as_deref() {
            Some("rate") => self.range(RangeFunction::Rate),
            Some("count_over_time") => self.range(RangeFunction::CountOverTime),
            Some("bytes_rate") => self.range(RangeFunction::BytesRate),
            Some("bytes_over_time") => self.range(RangeFunction::BytesOverTime),
            Some("vector") => {
                self.at += 1;
                self.expect("(")?;
                let number = self.signed_number().ok_or_else(|| self.unexpected("NUMBER"))?;
                self.expect(")")?;
                Ok(MetricExpr::Vector(number))
            }
            Some("sum" | "avg" | "min" | "max" | "count" | "topk" | "bottomk") => {
                self.aggregate(word.as_deref().unwrap_or_default())
            }
            Some(other) if matches!(self.ahead(1), Token::Sign("(")) => {
                Err(self.error(format!("syntax error: the function {other} is not supported here")))
            }
            _ => Err(self.unexpected("")),
        }
    }

    fn signed_number(&mut self) -> Option<f64> {
        let (skip, factor) = match self.peek() {
            Token::Sign("-") => (1, -1.0),
            Token::Sign("+") => (1, 1.0),
            _ => (0, 1.0),
        };
        let Token::Number(number) = *self.ahead(skip) else { return None };
        self.at += skip + 1;
        Some(number * factor)
    }

    fn aggregate(&mut self, word: &str) -> Result<MetricExpr, ParseError> {
        self.at += 1;
        let before = self.grouping()?;
        self.expect("(")?;
        let function = match word {
            "topk" | "bottomk" => {
                let number = self.signed_number().ok_or_else(|| self.unexpected("NUMBER"))?;
                if !(number >= 1.0 && number.fract() == 0.0 && number <= 1e6) {
                    return Err(self.error(format!("invalid parameter {word}({number},")));
                }
                self.expect(",")?;
                let count = number as usize;
                if word == "topk" { Aggregation::TopK(count) } else { Aggregation::BottomK(count) }
            }
            "sum" => Aggregation::Sum,
            "avg" => Aggregation::Avg,
            "min" => Aggregation::Min,
            "max" => Aggregation::Max,
            _ => Aggregation::Count,
        };
        let inner = Box::new(self.metric(0)?);
        self.expect(")")?;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.grouping()?.unwrap_or(Grouping { without: false, labels: Vec::new() }),
        };
        Ok(MetricExpr::Aggregate { function, grouping, inner })
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        let without = match self.word() {
            Some("by") => false,
            Some("without") => true,
            _ => return Ok(None),
        };
        self.at += 1;
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.is(")") {
            if labels.len() >= MAX_PARTS {
                return Err(self.error(format!("more than {MAX_PARTS} labels")));
            }
            labels.push(self.identifier()?);
            if !self.accept(",") && !self.is(")") {
                return Err(self.unexpected(") or ,"));
            }
        }
        self.expect(")")?;
        Ok(Some(Grouping { without, labels }))
    }

    fn range(&mut self, function: RangeFunction) -> Result<MetricExpr, ParseError> {
        self.at += 1;
        self.expect("(")?;
        let brackets = self.is("(");
        let mut log =
            if brackets { self.log()? } else { LogExpr { selector: self.selector()?, stages: Vec::new() } };
        // The range stands behind the selector or behind the stages.
        let mut window = if self.is("[") { Some(self.window()?) } else { None };
        if !brackets || window.is_none() {
            log.stages.extend(self.stages()?);
        }
        if window.is_none() {
            window = Some(self.window()?);
        }
        let (range_ns, offset_ns) = window.unwrap_or_default();
        self.expect(")")?;
        if matches!(self.word(), Some("by" | "without")) {
            return Err(
                self.error("grouping of this function is not supported; write sum by (…) (…) around it")
            );
        }
        Ok(MetricExpr::Range { function, log, range_ns, offset_ns })
    }

    /// `[5m]`, `[5m] offset 1h`
    fn window(&mut self) -> Result<(i64, i64), ParseError> {
        self.expect("[")?;
        let range = self.duration()?;
        if range < 1.0 {
            return Err(self.error("the range must be longer than nothing"));
        }
        self.expect("]")?;
        let mut offset = 0.0;
        if self.accept_word("offset") {
            let negative = self.accept("-");
            offset = self.duration()? * if negative { -1.0 } else { 1.0 };
        }
        Ok((range as i64, offset as i64))
    }

    fn duration(&mut self) -> Result<f64, ParseError> {
        match *self.peek() {
            Token::Duration(ns) if ns <= MAX_RANGE_NS => {
                self.at += 1;
                Ok(ns)
            }
            Token::Duration(_) => Err(self.error("a duration longer than 30 years")),
            _ => Err(self.unexpected("DURATION")),
        }
    }
}
