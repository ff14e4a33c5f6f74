# Prints what MIME::Parser, which MIMEDefang uses, makes of the messages named: a JSON object for each.
use strict;
use warnings;
use JSON::PP;
use MIME::Parser;

my $json = JSON::PP->new->ascii->canonical;

sub parts {
    my ($e) = @_;
    my $encoding = $e->head->get('Content-Transfer-Encoding') // '';
    $encoding =~ s/^\s+|\s+$//g;
    return ([$e->effective_type, $e->head->recommended_filename // '', $encoding], map { parts($_) } $e->parts);
}

for my $name (@ARGV) {
    my $parser = MIME::Parser->new;
    $parser->output_to_core(1);
    $parser->tmp_to_core(1);
    $parser->extract_nested_messages(0);
    my $entity = $parser->parse_open($name);
    my @fields = map { /^([^:]*):(.*)\z/s ? [$1, $2] : ['', $_] } @{ $entity->head->header };
    print $json->encode({ fields => \@fields, parts => [parts($entity)] }), "\n";
}
