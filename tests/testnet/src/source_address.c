/* Loaded into each tor of a watched network: binds its outgoing IPv4 connections, TCP and UDP, to 127.0.0.2, so that a
 * connection from any other address is a client's. Tor's OutboundBindAddress is not enough: tor ignores it for connections
 * to loopback. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

typedef int connect_fn(int, const struct sockaddr *, socklen_t);

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    connect_fn *next = (connect_fn *)dlsym(RTLD_NEXT, "connect");
    struct sockaddr_in local = {0};
    socklen_t size = sizeof local;
    if (to->sa_family == AF_INET && getsockname(fd, (struct sockaddr *)&local, &size) == 0 && local.sin_port == 0) {
        local.sin_family = AF_INET;
        local.sin_addr.s_addr = inet_addr("127.0.0.2");
        if (bind(fd, (struct sockaddr *)&local, sizeof local) != 0)
            return -1;
    }
    return next(fd, to, length);
}
