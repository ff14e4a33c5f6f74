/* Listeners of a notification socket that do nothing but note when they read
 * what: a thread each, so that each is woken by the kernel and by nothing else.
 *
 *	reader SOCKET LISTENERS
 *
 * It says "ready" when all of them listen, and at the end of standard input
 * prints for each message of each listener when it was read, in nanoseconds of
 * CLOCK_MONOTONIC, and how long after the time in the message, in nanoseconds
 * of CLOCK_REALTIME. The messages of a listener come in their order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct note {
	long long when, late;
};

struct listener {
	pthread_t thread;
	int fd;
	struct note *notes;
	size_t count, room;
};

static pthread_barrier_t ready;

static long long nanoseconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void note(struct listener *l, const char *line, long long when, long long now)
{
	long long seconds, micros;

	if (l->count == l->room) {
		l->room = l->room * 2 + 16384;
		l->notes = realloc(l->notes, l->room * sizeof *l->notes);
		if (l->notes == NULL)
			fail("realloc");
	}
	if (sscanf(line, "%*d %lld.%lld", &seconds, &micros) != 2) {
		fprintf(stderr, "line %s\n", line);
		exit(1);
	}
	l->notes[l->count].when = when;
	l->notes[l->count++].late = now - (seconds * 1000000000 + micros * 1000);
}

static void *listen_to(void *arg)
{
	struct listener *l = arg;
	char buf[65536];
	size_t have = 0;
	ssize_t n;

	while ((n = read(l->fd, buf + have, sizeof buf - 1 - have)) > 0) {
		long long now = nanoseconds(CLOCK_REALTIME), when = nanoseconds(CLOCK_MONOTONIC);
		char *line = buf, *end;

		have += (size_t)n;
		for (; (end = memchr(line, '\n', have - (size_t)(line - buf))) != NULL; line = end + 1) {
			*end = '\0';
			if (*line >= '0' && *line <= '9')
				note(l, line, when, now);
			else if (strncmp(line, "*LIVE", 5) == 0)
				pthread_barrier_wait(&ready);
		}
		have -= (size_t)(line - buf);
		memmove(buf, line, have);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct listener *all;
	int i, n;

	if (argc != 3 || (n = atoi(argv[2])) < 1 || (all = calloc((size_t)n, sizeof *all)) == NULL)
		return 2;
	snprintf(to.sun_path, sizeof to.sun_path, "%s", argv[1]);
	pthread_barrier_init(&ready, NULL, (unsigned)n + 1);
	for (i = 0; i < n; i++) {
		/* Memory is there before it is needed. */
		all[i].room = 65536;
		all[i].notes = malloc(all[i].room * sizeof *all[i].notes);
		if (all[i].notes == NULL)
			fail("malloc");
		memset(all[i].notes, 0, all[i].room * sizeof *all[i].notes);
		all[i].fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (all[i].fd < 0 || connect(all[i].fd, (struct sockaddr *)&to, sizeof to) != 0)
			fail("connect");
		if (write(all[i].fd, "?*+\n", 4) != 4)
			fail("write");
		if (pthread_create(&all[i].thread, NULL, listen_to, &all[i]) != 0)
			fail("pthread_create");
	}
	pthread_barrier_wait(&ready);
	if (write(1, "ready\n", 6) != 6)
		return 1;
	while (read(0, &i, sizeof i) > 0)
		;
	for (i = 0; i < n; i++) {
		size_t k;

		/* What is in the socket is still read. */
		shutdown(all[i].fd, SHUT_RD);
		pthread_join(all[i].thread, NULL);
		for (k = 0; k < all[i].count; k++)
			printf("%d %lld %lld\n", i, all[i].notes[k].when, all[i].notes[k].late);
	}
	return fflush(stdout) != 0;
}
