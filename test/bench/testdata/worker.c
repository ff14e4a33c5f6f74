/* The least that a filter worker can do, so that a measurement is of the
 * multiplexor: it answers each request line at once. "sleepok N" waits N
 * microseconds first, to have many workers busy at the same time.
 *
 * "scan QID DIR" lets the message in DIR pass.
 *
 * With LOADING_US it takes so long before it is ready, as a filter in Perl does
 * that has yet to be compiled, and says in each answer when that was. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *s)
{
	size_t n = strlen(s);

	if (write(1, s, n) != (ssize_t)n)
		_exit(1);
}

static void scan(const char *dir)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/RESULTS", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0640);
	say(fd >= 0 && write(fd, "F\n", 2) == 2 ? "ok\n" : "error: no RESULTS\n");
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	static char buf[65536];
	char answer[64] = "ok 1\n";
	size_t have = 0;

#ifdef LOADING_US
	struct timespec now;

	usleep(LOADING_US);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(answer, sizeof answer, "ok 1 %lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
#endif

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
		} else if (strncmp(buf, "scan ", 5) == 0) {
			const char *dir = strchr(buf + 5, ' ');

			scan(dir == NULL ? "" : dir + 1);
		} else {
			if (strncmp(buf, "sleepok ", 8) == 0)
				usleep((useconds_t)atol(buf + 8));
			say(answer);
		}
		memmove(buf, buf + used, have - used);
		have -= used;
	}
}
