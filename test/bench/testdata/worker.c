/* The least that a filter worker can do, so that a measurement is of the
 * multiplexor: it answers each request line at once. "sleepok N" waits N
 * microseconds first, to have many workers busy at the same time. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *s)
{
	size_t n = strlen(s);

	if (write(1, s, n) != (ssize_t)n)
		_exit(1);
}

int main(void)
{
	static char buf[65536];
	size_t have = 0;

	for (;;) {
		char *nl;
		size_t used;

		while ((nl = memchr(buf, '\n', have)) == NULL) {
			ssize_t n;

			if (have == sizeof buf)
				return 1;
			n = read(0, buf + have, sizeof buf - have);
			if (n <= 0)
				return 0;
			have += (size_t)n;
		}
		*nl = '\0';
		used = (size_t)(nl - buf) + 1;
		if (strcmp(buf, "ping") == 0) {
			say("PONG\n");
		} else {
			if (strncmp(buf, "sleepok ", 8) == 0)
				usleep((useconds_t)atol(buf + 8));
			say("ok 1\n");
		}
		memmove(buf, buf + used, have - used);
		have -= used;
	}
}
