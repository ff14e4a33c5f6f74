# Makes a fork server of a Perl worker program, as multiplexor-forkserver(7)
# describes. perl reads this before the program itself, which then runs as it
# would by itself: it loads the filter, and its main() returns because of the
# argument -embserver. Only core modules are used.

package Postern::ForkServer;

use strict;
use warnings;
use Fcntl ();
use IO::Handle ();
use POSIX ();

my $owner = $$;    # the filter may start processes that come by here
my $serving;
my $input = '';
my %held;          # the multiplexor's ends of pipes it has not taken yet

my ($number) = delete($ENV{POSTERN_FORK_SOCKET}) =~ /\A([0-9]+)\z/ or die "fork server: no control socket\n";
open(my $control, '+<&=', $number) or die "fork server: control socket: $!\n";
fcntl($control, Fcntl::F_SETFD(), Fcntl::FD_CLOEXEC()) or die "fork server: control socket: $!\n";
my $status = grep { $_ eq '-embserveru' } @ARGV;

# The program calls main() as its last act, and not at all if it was loaded by
# "do": so it is the real thing, and main() a little more than it was.
INIT {
    if (my $main = main->can('main')) {
        no warnings 'redefine';
        *main::main = sub { $main->(@_); serve() };
    }
}

# A program without main() has done its work when it ends.
END { serve() if !$serving && $$ == $owner && $? == 0 && main->can('do_main_loop') }

sub serve {
    return if $serving or $$ != $owner;
    $serving = 1;
    main->can('do_main_loop') or die "fork server: the program has no do_main_loop()\n";
    tell_multiplexor('hello 1');
    while (defined(my $line = next_line())) {
        my ($word, $argument) = split ' ', $line;
        next unless defined $argument and $argument =~ /\A[0-9]+\z/;
        if    ($word eq 'fork')  { make_worker($argument) }
        elsif ($word eq 'taken') { delete $held{$argument} }
        elsif ($word eq 'reap')  { waitpid($argument, 0) }
    }
    # No END blocks, no destructors: what was loaded belongs to the workers.
    POSIX::_exit(0);
}

sub make_worker {
    my ($id) = @_;
    my (@ours, @theirs);
    for my $fd (0 .. ($status ? 3 : 2)) {
        pipe(my $read, my $write) or return tell_multiplexor("failed $id pipe: $!");
        push @ours,   $fd ? $read  : $write;
        push @theirs, $fd ? $write : $read;
    }
    my $pid = fork;
    defined $pid or return tell_multiplexor("failed $id fork: $!");
    if (!$pid) {
        work($control, \@theirs, @ours, map { @$_ } values %held);
        exit 0;
    }
    POSIX::setpgid($pid, $pid);
    $held{$id} = \@ours;
    tell_multiplexor(join ' ', 'child', $id, $pid, map { fileno $_ } @ours);
}

# work is the life of a worker. Descriptors are replaced below Perl's handles, so
# that layers and buffering modes which the filter has set stay.
sub work {
    my ($control, $streams, @foreign) = @_;
    POSIX::setpgid(0, 0);
    close $_ for $control, @foreign;
    POSIX::close(3) unless $status;
    for my $fd (0 .. $#$streams) {
        POSIX::dup2(fileno $streams->[$fd], $fd);
        close $streams->[$fd];
    }
    STDIN->clearerr;    # loading may have read to the end of /dev/null
    %held = ();
    srand;              # or all workers would throw the same dice
    my $program = $0;
    $0 = $program;      # cuts the command line that ps(1) shows down to this
    main::do_main_loop();
}

sub tell_multiplexor {
    my ($line) = @_;
    $line =~ tr/\n/ /;
    $line .= "\n";
    while (length $line) {
        my $n = syswrite $control, $line;
        next if !defined $n and $!{EINTR};
        POSIX::_exit(1) unless $n;
        substr($line, 0, $n) = '';
    }
}

# next_line gives undef when the multiplexor has gone.
sub next_line {
    my $end;
    while (($end = index $input, "\n") < 0) {
        my $n = sysread $control, $input, 4096, length $input;
        next if !defined $n and $!{EINTR};
        return undef unless $n;
    }
    return substr $input, 0, $end + 1, '';
}

1;
