# A filter for mimedefang.pl that calls every function that changes, refuses or diverts a message. The sender says which,
# do.NAME@...; the questions are answered by what they are about: an address of 192.0.2.0/24, a name of ANSWER.helo.test,
# a sender or recipient ANSWER.TEXT@....
#
# $Notes is a file that what the filter is asked and shown goes into, and $Dir a directory for what it sends elsewhere.

use strict;
our ($Notes, $Dir);

$Features{'Path:QUARANTINEDIR'} = "$Dir/quarantine";
$Features{'Path:SENDMAIL'} = "$Dir/sendmail";
detect_and_load_perl_modules();

my %do = (
	'nothing' => {},
	'rebuild' => { begin => sub { action_rebuild() } },

	'bounce' => { begin => sub { action_bounce('No, thanks', 550, '5.7.0') } },
	'bounce-plain' => { begin => sub { action_bounce('') } },
	'bounce-odd' => { begin => sub { action_bounce('Odd', 450, '4.1.1') } },
	'bounce-lines' => { begin => sub { action_bounce("One\nTwo 100% sure\nThree", 554, '5.6.0') } },
	'bounce-bytes' => { begin => sub { action_bounce("Caf\xc3\xa9 \"quoted\"\tand\x01 so on") } },
	'bounce-twice' => { begin => sub { action_bounce('First', 551, '5.1.1') }, end => sub { action_bounce('Second', 552, '5.2.2') } },
	'bounce-part' => { part => sub { return action_bounce('A part is wrong') } },
	'bounce-changed' => { begin => sub { action_add_header('X-Lost', 'yes'); add_recipient('lost@there.test'); action_bounce('Lost') } },
	'tempfail' => { begin => sub { action_tempfail('Come again', 450, '4.2.1') } },
	'tempfail-plain' => { begin => sub { action_tempfail('') } },
	'tempfail-odd' => { begin => sub { action_tempfail('Odd', 550, '5.1.1') } },
	'tempfail-bounce' => { begin => sub { action_tempfail('Later') }, end => sub { action_bounce('Never') } },
	'discard' => { begin => sub { action_discard() } },
	'discard-changed' => { begin => sub { action_add_header('X-Lost', 'yes'); add_recipient('lost@there.test'); action_discard() } },
	'discard-bounce' => { begin => sub { action_discard() }, end => sub { action_bounce('Never') } },

	'add' => { begin => sub { action_add_header('X-New', 'one'); action_add_header('X-New', 'two') } },
	'add-late' => { wrapup => sub { action_add_header('X-New', 'late') } },
	'add-folded' => { end => sub { action_add_header('X-New', "one\n two\n\tthree\nfour") } },
	'add-cr' => { end => sub { action_add_header('X-New', "one\r\n two\rthree") } },
	'add-empty' => { end => sub { action_add_header('X-New', '') } },
	'add-blank' => { end => sub { action_add_header('X-New', "  two blanks, % \\ ' \" and one behind ") } },
	'add-bytes' => { end => sub { action_add_header('X-New', "Caf\xe9 \xc3\xa9\t100%41") } },
	'add-control' => { end => sub { action_add_header('X-New', "a\x01b\x7fc\x1bd") } },
	'add-long' => { end => sub { action_add_header('X-New', 'long ' x 400) } },
	'add-longest' => { end => sub { action_add_header('X-New', 'x' x 3000) } },
	'add-blank-line' => { end => sub { action_add_header('X-New', "one\n\ntwo\n \nthree") } },
	'add-received' => { end => sub { action_add_header('Received', 'from the filter by nobody; Mon, 1 Jan 2024 10:00:00 +0000') } },
	'insert' => { end => sub { action_insert_header('X-New', 'top', 0); action_insert_header('X-New', 'second', 1) } },
	'insert-twice' => { end => sub { action_insert_header('X-New', 'one', 0); action_insert_header('X-New', 'two', 0) } },
	'insert-plain' => { end => sub { action_insert_header('X-New', 'no index') } },
	'insert-inside' => { end => sub { action_insert_header('X-New', 'three', 3); action_insert_header('X-New', 'four', 4) } },
	'insert-beyond' => { end => sub { action_insert_header('X-New', 'far', 99) } },
	'insert-folded' => { end => sub { action_insert_header('X-New', "one\n two", 2) } },
	'change' => { end => sub { action_change_header('Subject', "[checked] $Subject") } },
	'change-case' => { end => sub { action_change_header('sUBJECT', 'other case') } },
	'change-second' => { end => sub { action_change_header('X-Twice', 'changed', 2) } },
	'change-beyond' => { end => sub { action_change_header('X-Twice', 'new', 9) } },
	'change-new' => { end => sub { action_change_header('X-New', 'new') } },
	'change-empty' => { end => sub { action_change_header('X-Twice', '', 1) } },
	'change-zero' => { end => sub { action_change_header('X-Twice', 'zero', 0) } },
	'change-received' => { end => sub { action_change_header('Received', 'changed') } },
	'change-type' => { end => sub { action_change_header('Content-Type', 'text/x-other; charset=us-ascii') } },
	'delete' => { end => sub { action_delete_header('X-Twice') } },
	'delete-second' => { end => sub { action_delete_header('X-Twice', 2) } },
	'delete-both' => { end => sub { action_delete_header('X-Twice', 1); action_delete_header('x-twice', 1) } },
	'delete-beyond' => { end => sub { action_delete_header('X-Twice', 9) } },
	'delete-all' => { end => sub { action_delete_all_headers('x-twice') } },
	'delete-received' => { end => sub { action_delete_all_headers('Received') } },
	'delete-most' => { end => sub { foreach my $name (qw(From To Subject Date Message-ID X-Twice Received)) { action_delete_all_headers($name) } } },
	'delete-add' => { end => sub { action_delete_header('X-Twice'); action_add_header('X-Twice', 'again'); action_change_header('X-Twice', 'last', 2) } },
	'add-delete' => { end => sub { action_add_header('X-New', 'gone'); action_delete_header('X-New'); action_insert_header('X-New', 'stays', 1) } },

	'recipient' => { end => sub { add_recipient('new@there.test'); add_recipient('<angle@there.test>') } },
	'recipient-again' => { end => sub { add_recipient('<One@There.Test>'); add_recipient('new@there.test'); add_recipient('new@there.test') } },
	'recipient-gone' => { end => sub { delete_recipient('<one@there.test>') } },
	'recipient-bare' => { end => sub { delete_recipient('one@there.test'); delete_recipient('nobody@there.test') } },
	'recipient-case' => { end => sub { delete_recipient('<ONE@THERE.TEST>') } },
	'recipient-none' => { end => sub { delete_recipient($_) foreach @Recipients } },
	'recipient-all' => { end => sub { delete_recipient($_) foreach @Recipients; add_recipient('other@there.test') } },
	'recipient-name' => { end => sub { add_recipient('"Some One" <some@there.test>') } },
	'recipient-two' => { end => sub { add_recipient('two@there.test, three@there.test') } },
	'recipient-early' => { sender => sub { add_recipient('early@there.test'); action_add_header('X-Early', 'sender') } },
	'recipient-asked' => { recipient => sub { add_recipient('asked@there.test'); action_add_header('X-Early', "recipient $_[0]") } },
	'commands' => { recipient => sub { read_commands_file(); note('read', $Sender, @Recipients, $RelayAddr, $RelayHostname, $Helo, $SendmailMacros{'_'}) } },
	'sender' => { end => sub { change_sender('bounces@else.test') } },
	'sender-angle' => { end => sub { change_sender('<bounces@else.test>') } },
	'sender-null' => { end => sub { change_sender('<>') } },
	'sender-twice' => { begin => sub { change_sender('first@else.test') }, end => sub { change_sender('second@else.test') } },
	'everything' => { end => sub {
		my ($entity) = @_;
		action_change_header('Subject', 'everything'); action_add_header('X-New', 'yes'); action_delete_all_headers('X-Twice');
		change_sender('bounces@else.test'); add_recipient('new@there.test'); delete_recipient('<one@there.test>');
		append_text_boilerplate($entity, 'The end.', 1);
	} },

	'accept' => { part => sub { return action_accept() } },
	'accept-warning' => { part => sub { return action_accept_with_warning("Be careful.\n") } },
	'drop' => { part => sub { return action_drop() } },
	'drop-exe' => { part => sub { return $_[2] eq '.exe' ? action_drop() : action_accept() } },
	'drop-warning' => { part => sub { return $_[2] eq '.exe' ? action_drop_with_warning("A program is gone.\n") : action_accept() } },
	'drop-multipart' => { multipart => sub { return $_[3] eq 'multipart/alternative' ? action_drop() : action_accept() } },
	'replace' => { part => sub { return $_[2] eq '.exe' ? action_replace_with_warning("A program was here.\n") : action_accept() } },
	'replace-all' => { part => sub { return action_replace_with_warning("Something was here. \xc3\xa9\n") } },
	'replace-multipart' => { multipart => sub { return action_replace_with_warning("Parts were here.\n") } },
	'replace-url' => { part => sub { return $_[2] eq '.exe' ? action_replace_with_url($_[0], "$Dir/web", 'http://there.test/parts', "It is at _URL_ now.\n") : action_accept() } },
	'defang' => { part => sub { return $_[2] eq '.exe' ? action_defang($_[0], 'harmless', 'harmless.txt', 'application/octet-stream') : action_accept() } },
	'external' => { part => sub { return $_[3] eq 'text/plain' && action_external_filter($_[0], 'tr a-z A-Z <FILTERINPUT >FILTEROUTPUT') ? 1 : action_accept() } },
	'quarantine' => { part => sub { return $_[2] eq '.exe' ? action_quarantine($_[0], "A program is kept.\n") : action_accept() } },
	'quarantine-all' => { begin => sub { action_quarantine_entire_message('All of it'); get_quarantine_dir() } },
	'hold' => { begin => sub { action_sm_quarantine('wait for the administrator'); action_add_header('X-Held', 'yes') } },
	'hold-bounce' => { begin => sub { action_sm_quarantine('wait'); action_bounce('Not at all') } },
	'notify-sender' => { end => sub { action_notify_sender("Your message was seen.\n") } },
	'notify-admin' => { end => sub { action_notify_administrator("A message was seen.\n") } },
	'text' => { end => sub { append_text_boilerplate($_[0], 'The end.', 0) } },
	'text-all' => { end => sub { append_text_boilerplate($_[0], 'The end.', 1) } },
	'html' => { end => sub { append_html_boilerplate($_[0], '<em>The end.</em>', 1) } },
	'part' => { end => sub { action_add_part($_[0], 'text/plain', '-suggest', "One more.\n", 'more.txt', 'inline') } },
	'part-first' => { end => sub { action_add_part($_[0], 'text/plain', '-suggest', "One before.\n", 'before.txt', 'attachment', 0) } },
	'entity' => { end => sub { action_add_entity(MIME::Entity->build(Type => 'text/x-built', Top => 0, Data => ["built\n"])) } },
	'redundant' => { end => sub { remove_redundant_html_parts($_[0]) } },
	'entire' => { end => sub { replace_entire_message(MIME::Entity->build(Type => 'text/plain', Encoding => '8bit', Data => ["All new. \xc3\xa9\n", ".\n", "From me\n"])) } },
	'entire-empty' => { end => sub { replace_entire_message(MIME::Entity->build(Type => 'text/plain', Data => [])) } },
	'uri' => { part => sub { anonymize_uri($_[0]); return action_rebuild() } },
	'copies' => { begin => sub { md_copy_orig_msg_to_work_dir(); md_copy_orig_msg_to_work_dir_as_mbox_file(); note('copies', -s './Work/INPUTMSG') } },
	'resend' => { begin => sub { resend_message('again@there.test') } },
	'by-domain' => { begin => sub { stream_by_domain() } },
	'by-recipient' => { begin => sub { stream_by_recipient() } },
	'key' => { begin => sub { add_ip_validation_header() } },
	'log' => { begin => sub { md_graphdefang_log_enable(); md_graphdefang_log('seen', 'one', 'two'); md_syslog('info', 'seen') } },
	'rejected' => { begin => sub { action_bounce('x') }, end => sub { note('rejected', message_rejected()) } },

	'dies' => { begin => sub { die "on purpose\n" } },
	'raw-unknown' => { begin => sub { raw("zebra\n\nHX-New stays\n") } },
	'raw-words' => { begin => sub { raw("HX-New\nNX-New 0\nIX-Twice 1\nIX-Twice\nJX-Twice\nHX-Kept yes\n") } },
	'raw-spaces' => { begin => sub { raw("HX-New raw spaces  in it \n") } },
	'raw-index' => { begin => sub { raw("JX-Twice 2x\nNX-New -3 negative\nIX-New none text\n") } },
	'raw-behind' => { begin => sub { raw("F\nHX-Lost yes\n") } },
	'raw-refused-behind' => { begin => sub { raw("HX-New lost\nF\nB554 5.7.1 too%20late\n") } },
	'raw-overlong' => { begin => sub { raw('HX-New ' . 'x' x 17000 . "\n") } },
	'raw-type' => { begin => sub { raw("Mtext/x-raw;%0A%20a=b\n") } },
	'raw-sender' => { begin => sub { raw("f\nR\nS\n") } },
	'raw-nobody' => { begin => sub { raw("C\n") } },
	'raw-empty-body' => { begin => sub { raw("C\n"); open(my $f, '>', 'NEWBODY') or die; close($f) } },
	'raw-body' => { begin => sub { raw("C\n"); open(my $f, '>', 'NEWBODY') or die; print $f "a new body\r\n.\nwith dots\n..\nand no end"; close($f) } },
	# The last one: what it prints is taken for the answer, and the multiplexor of Debian is out of step from then on.
	'prints' => { begin => sub { print "error: on purpose\n" } },
);

# raw writes to RESULTS as no function does.
sub raw { open(my $f, '>>', 'RESULTS') or die; print $f @_; close($f) }

sub note {
	my ($what, @words) = @_;
	open(my $f, '>>', $Notes) or die "$Notes: $!";
	print $f join(' ', $what, map { defined $_ && $_ ne '' ? $_ : '-' } @words), "\n";
	close($f);
}

# show notes what a file in the working directory has.
sub show {
	my ($name) = @_;
	open(my $in, '<', $name) or return;
	my @lines = <$in>;
	open(my $f, '>>', $Notes) or die "$Notes: $!";
	print $f "$name: $_" foreach map { /\n\z/ ? $_ : "$_\n" } @lines;
}

my %answers = (
	'reject' => ['REJECT', 'Not here'], 'tempfail' => ['TEMPFAIL', 'Not now'], 'accept' => ['ACCEPT_AND_NO_MORE_FILTERING', 'ok'],
	'discard' => ['DISCARD', 'ok'], 'code' => ['REJECT', 'With a code', 553, '5.1.2'], 'later' => ['TEMPFAIL', 'With a code', 452, '4.5.3'],
	'odd' => ['REJECT', 'With an odd code', 450, '4.1.2'], 'lines' => ['REJECT', "One\nTwo"], 'word' => ['continue', 'In lower case'],
	'empty' => ['REJECT', ''], 'percent' => ['TEMPFAIL', "100% \xc3\xa9"], 'delay' => ['REJECT', 'After a while', 550, '5.7.1', 1],
	'number' => [1, 'ok'], 'minus' => [-1, 'A number'], 'zero' => [0, 'Zero'],
);

sub answer {
	my ($key) = @_;
	my $answer = $answers{$key} // ['CONTINUE', 'ok'];
	return @$answer;
}

# act does what the sender asks for in a place.
sub act {
	my ($place, $sender, @args) = @_;
	return unless $sender =~ /^<?do\.([a-z-]+)\@/;
	my $what = $do{$1} or die "nothing is called $1\n";
	return $what->{$place} ? $what->{$place}->(@args) : undef;
}

my @relays = sort keys %answers;

sub filter_relay {
	my ($ip) = @_;
	note('relayok', @_);
	return $ip =~ /^192\.0\.2\.1(\d\d)$/ ? answer($relays[$1]) : ('CONTINUE', 'ok');
}

sub filter_helo {
	my ($ip, $name, $helo) = @_;
	note('helook', @_);
	return answer($helo =~ /^([a-z]+)\.helo\.test$/ ? $1 : '');
}

sub filter_sender {
	my ($sender) = @_;
	note('senderok', @_, @ESMTPArgs);
	show('COMMANDS');
	act('sender', $sender);
	return answer($sender =~ /^<([a-z]+)\.sender\@/ ? $1 : '');
}

sub filter_recipient {
	my ($rcpt, $sender) = @_;
	note('recipok', @_, @ESMTPArgs);
	show('COMMANDS') unless $rcpt =~ /^<many/;
	act('recipient', $sender, $rcpt);
	return answer($rcpt =~ /^<([a-z]+)\.rcpt\@/ ? $1 : '');
}

sub filter_begin {
	note('scan', $Subject, $SuspiciousCharsInHeaders, $SuspiciousCharsInBody, $MessageID, scalar @Recipients);
	show($_) foreach qw(COMMANDS HEADERS INPUTMSG);
	act('begin', $Sender, @_);
}

sub filter {
	my ($entity, $name, $ext, $type) = @_;
	note('part', $name, $ext, $type);
	return act('part', $Sender, @_) // action_accept();
}

sub filter_multipart {
	my ($entity, $name, $ext, $type) = @_;
	note('multipart', $name, $ext, $type);
	return act('multipart', $Sender, @_) // action_accept();
}

sub filter_end { act('end', $Sender, @_) }
sub filter_wrapup { act('wrapup', $Sender, @_) }

sub defang_warning { return "$_[0] is called $_[1] now.\n" }

1;
