#!/usr/bin/perl
# A filter worker in Perl without MIMEDefang, as postern-filter(7) describes them:
# refuses recipients called "nobody" and messages about lotteries, and adds a field to
# the others. A multiplexor starts it: worker /usr/local/libexec/filter.pl
use strict;
use warnings;

# Returns text as a word of an answer or of RESULTS.
sub encode {
    my ($text) = @_;
    $text =~ s/([^\x21-\x7e]|[%\\'"])/sprintf('%%%02X', ord $1)/ge;
    return $text;
}

# Returns the bytes that a word stands for.
sub decode {
    my ($word) = @_;
    $word =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    return $word;
}

# Judges a message: reads what is known of it, and writes what is to be done.
sub scan {
    my ($dir) = @_;
    my ($client, $subject) = ('unknown', '');
    open my $commands, '<', "$dir/COMMANDS" or die "COMMANDS: $!\n";
    while (my $line = <$commands>) {
        chomp $line;
        my ($letter, $argument) = (substr($line, 0, 1), decode(substr $line, 1));
        last if $letter eq 'F';
        $client  = $argument if $letter eq 'I';
        $subject = $argument if $letter eq 'U';
    }
    my $verdict =
        $subject =~ /lottery/i
      ? 'B554 5.7.1 ' . encode("no thanks: $subject")
      : 'HX-Seen ' . encode("by a filter, 100%, from $client");
    open my $results, '>>', "$dir/RESULTS" or die "RESULTS: $!\n";
    print {$results} "$verdict\nF\n" and close $results or die "RESULTS: $!\n";
    return 'ok';
}

# Returns the answer to a request.
sub answer {
    my ($verb, @words) = map { decode($_) } split ' ', shift;
    $verb = lc($verb // '');
    return 'PONG' if $verb eq 'ping';
    return scan($words[1] // '') if $verb eq 'scan';
    return 'ok 0 ' . encode("no such user: $words[0]") . ' 550 5.1.1' if $verb eq 'recipok' && ($words[0] // '') =~ /^<nobody@/;
    return 'ok 1' if $verb =~ /^(?:relay|helo|sender|recip)ok$/;
    return 'error: Unknown command';
}

$| = 1;
while (my $request = <STDIN>) {
    my $answer = eval { answer($request) };
    warn $@ unless defined $answer;
    print $answer // 'error: cannot scan', "\n";
}
